#include "store/azure_answers.h"

#include <fmt/core.h>

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>
#include <optional>
#include <pugixml.hpp>

namespace farshore {
namespace {

constexpr size_t kMaxErrorText = 500;

std::optional<uint64_t> number(std::string_view text) {
    uint64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
    return value;
}

// One line of printable characters.
std::string one_line(std::string_view text) {
    std::string out;
    for (const char c : text.substr(0, kMaxErrorText))
        out += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? ' ' : c;
    while (!out.empty() && out.back() == ' ') out.pop_back();
    return out;
}

bool load(pugi::xml_document& document, std::string_view xml) {
    // No entities of a document's own: pugixml knows none but the five of XML.
    return static_cast<bool>(
        document.load_buffer(xml.data(), xml.size(), pugi::parse_default, pugi::encoding_utf8));
}

}  // namespace

Result<AzureBlobPage> parse_azure_blob_page(std::string_view xml) {
    const auto bad = [](std::string_view what) {
        return fail(Code::kMalformed,
                    fmt::format("the answer to a listing of blobs is not one: {}", what),
                    "see that the endpoint is a Blob service, and no proxy answers in its place");
    };
    if (xml.size() > kMaxAzureAnswerBytes) return bad("too long");
    pugi::xml_document document;
    if (!load(document, xml)) return bad("no XML");
    const pugi::xml_node root = document.child("EnumerationResults");
    if (!root) return bad("no EnumerationResults");
    const pugi::xml_node blobs = root.child("Blobs");
    // The last element: with it, nothing is missing before.
    const pugi::xml_node marker = root.child("NextMarker");
    if (!blobs || !marker) return bad("not whole");
    AzureBlobPage page;
    for (const pugi::xml_node blob : blobs.children("Blob")) {
        const pugi::xml_node name = blob.child("Name");
        if (name.attribute("Encoded").as_bool()) continue;  // no name of ours needs it
        const auto size =
            number(blob.child("Properties").child("Content-Length").text().as_string());
        if (name.text().empty() || !size) return bad("a blob without name or size");
        page.blobs.push_back({name.text().as_string(), *size});
    }
    page.next_marker = marker.text().as_string();
    return page;
}

AzureErrorText parse_azure_error(std::string_view xml) {
    pugi::xml_document document;
    if (xml.size() > kMaxAzureAnswerBytes || !load(document, xml)) return {};
    const pugi::xml_node root = document.child("Error");
    AzureErrorText error;
    error.code = one_line(root.child("Code").text().as_string());
    const std::string_view message = root.child("Message").text().as_string();
    // Behind the first line are the request's id and time.
    error.message = one_line(message.substr(0, message.find('\n')));
    error.detail = one_line(root.child("AuthenticationErrorDetail").text().as_string());
    // A service may print the signature that it expected: it is worth a key for one request.
    if (error.detail.find("MAC signature") != std::string::npos) error.detail.clear();
    return error;
}

Result<AzureToken> parse_azure_token(std::string_view json, TimePoint now) {
    const auto bad = [](std::string_view what) {
        return fail(Code::kMalformed, fmt::format("the token service's answer is none: {}", what));
    };
    const auto answer = nlohmann::json::parse(json.begin(), json.end(), nullptr, false);
    if (!answer.is_object()) return bad("no JSON object");
    const auto token = answer.find("access_token");
    if (token == answer.end() || !token->is_string()) return bad("no access_token");
    const std::string& text = token->get_ref<const std::string&>();
    if (text.empty() || text.size() > 64u << 10 ||
        std::any_of(text.begin(), text.end(), [](char c) { return c <= ' ' || c > '~'; }))
        return bad("an access_token that cannot be one");
    // Numbers come as such or as text.
    const auto field = [&](const char* name) -> std::optional<uint64_t> {
        const auto found = answer.find(name);
        if (found == answer.end()) return std::nullopt;
        if (found->is_number_unsigned()) return found->get<uint64_t>();
        if (found->is_string()) return number(found->get_ref<const std::string&>());
        return std::nullopt;
    };
    constexpr uint64_t kMaxSeconds = 253'402'300'799;  // the end of the year 9999
    AzureToken out{Secret(as_bytes(text)), {}};
    if (const auto on = field("expires_on"); on && *on <= kMaxSeconds)
        out.expires.us = static_cast<int64_t>(*on) * 1'000'000;
    else if (const auto in = field("expires_in"); in && *in <= kMaxSeconds / 2)
        out.expires.us = now.us + static_cast<int64_t>(*in) * 1'000'000;
    else
        return bad("it does not say when the token expires");
    return out;
}

}  // namespace farshore
