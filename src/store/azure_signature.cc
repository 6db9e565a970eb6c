#include "store/azure_signature.h"

#include <fmt/core.h>

#include <algorithm>
#include <map>

#include "codec/hash.h"

namespace farshore {
namespace {

std::string lower(std::string_view text) {
    std::string out(text);
    for (char& c : out)
        if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + 32);
    return out;
}

std::string header_value(const AzureSigned& request, std::string_view name) {
    for (const auto& [own_name, value] : request.headers)
        if (lower(own_name) == name) return value;
    return {};
}

}  // namespace

std::string content_md5(ByteView bytes) { return to_base64(md5_checksum(bytes)); }

Result<Secret> decode_account_key(const Secret& encoded) {
    std::string_view text = as_text(encoded.reveal());
    while (!text.empty() && (text.back() == '\n' || text.back() == '\r' || text.back() == ' '))
        text.remove_suffix(1);
    auto raw = from_base64(text);
    if (!raw || raw->empty())
        return fail(Code::kInvalidArgument, "the account key is not base64",
                    "copy the whole key, as the portal shows it (\"Access keys\", key1 or key2)");
    return Secret(std::move(*raw));
}

std::string azure_string_to_sign(const std::string& account, const AzureSigned& request) {
    std::string text = request.method + "\n";
    text += header_value(request, "content-encoding") + "\n";
    text += header_value(request, "content-language") + "\n";
    text += (request.body_bytes == 0 ? "" : std::to_string(request.body_bytes)) + "\n";
    for (const char* name : {"content-md5", "content-type", "date", "if-modified-since", "if-match",
                             "if-none-match", "if-unmodified-since", "range"})
        text += header_value(request, name) + "\n";
    std::map<std::string, std::string> own;
    for (const auto& [name, value] : request.headers)
        if (std::string key = lower(name); key.starts_with("x-ms-")) own[std::move(key)] = value;
    for (const auto& [name, value] : own) text += name + ":" + value + "\n";
    text += "/" + account + request.url_path;
    std::map<std::string, std::vector<std::string>> query;
    for (const auto& [name, value] : request.query) query[lower(name)].push_back(value);
    for (auto& [name, values] : query) {
        std::sort(values.begin(), values.end());
        text += "\n" + name + ":";
        for (size_t i = 0; i < values.size(); ++i) text += (i > 0 ? "," : "") + values[i];
    }
    return text;
}

std::string azure_authorization(const std::string& account, const Secret& key,
                                const AzureSigned& request) {
    const std::string text = azure_string_to_sign(account, request);
    return fmt::format("SharedKey {}:{}", account,
                       to_base64(hmac_sha256(key.reveal(), as_bytes(text))));
}

}  // namespace farshore
