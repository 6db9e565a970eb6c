#include "store/s3_xml.h"

#include <fmt/core.h>

#include <charconv>
#include <pugixml.hpp>

#include "os/http.h"

namespace farshore {
namespace {

constexpr size_t kMaxWords = 300;
constexpr size_t kMaxEntries = 10'000;  // S3 sends at most 1000

auto malformed(std::string_view what) {
    return fail(Code::kMalformed, fmt::format("the server's answer is no {}", what));
}

// `root` without its namespace prefix; the document keeps it alive.
Result<pugi::xml_node> parse(pugi::xml_document& document, std::string_view body,
                             std::initializer_list<std::string_view> roots) {
    if (!document.load_buffer(body.data(), body.size(), pugi::parse_default))
        return malformed(*roots.begin());
    const pugi::xml_node root = document.document_element();
    for (const std::string_view name : roots)
        if (name == root.name()) return root;
    return malformed(*roots.begin());
}

// One line for a person: whatever is in it was written by somebody else.
std::string words(const char* text) {
    std::string out;
    for (const char* at = text; *at != '\0' && out.size() < kMaxWords; ++at)
        out += static_cast<unsigned char>(*at) < 0x20 || *at == 0x7f ? ' ' : *at;
    return out;
}

Result<std::string> decoded(const pugi::xml_node& node, bool encoded) {
    if (!encoded) return std::string(node.child_value());
    return percent_decode(node.child_value(), true);
}

Result<bool> take_truncated(const pugi::xml_node& root) {
    const std::string_view text = root.child_value("IsTruncated");
    if (text == "true") return true;
    // Some servers leave it out of an empty listing.
    if (text == "false" || text.empty()) return false;
    return malformed("listing");
}

Result<S3Entry> take_entry(const pugi::xml_node& node, bool encoded, bool versions) {
    S3Entry entry;
    entry.delete_marker = std::string_view(node.name()) == "DeleteMarker";
    FS_ASSIGN(entry.key, decoded(node.child("Key"), encoded));
    if (entry.key.empty()) return malformed("listing: an entry without a key");
    if (!entry.delete_marker) {
        const std::string_view size = node.child_value("Size");
        const auto [end, error] =
            std::from_chars(size.data(), size.data() + size.size(), entry.size_bytes);
        if (error != std::errc() || end != size.data() + size.size())
            return malformed("listing: an entry without a size");
    }
    entry.version_id = node.child_value("VersionId");
    if (versions && entry.version_id.empty())
        return malformed("listing of versions: an entry without one");
    if (auto modified = from_rfc3339(node.child_value("LastModified"))) entry.modified = *modified;
    return entry;
}

std::string scope_of(const pugi::xml_node& rule) {
    std::string_view prefix = rule.child_value("Prefix");
    if (prefix.empty()) prefix = rule.child("Filter").child_value("Prefix");
    if (prefix.empty()) prefix = rule.child("Filter").child("And").child_value("Prefix");
    return prefix.empty() ? "" : fmt::format(" of '{}'", words(prefix.data()));
}

}  // namespace

Result<S3Error> parse_s3_error(std::string_view body) {
    pugi::xml_document document;
    FS_ASSIGN(const pugi::xml_node root, parse(document, body, {"Error"}));
    S3Error error;
    error.code = words(root.child_value("Code"));
    error.message = words(root.child_value("Message"));
    error.region = words(root.child_value("Region"));
    if (error.code.empty()) return malformed("Error: it has no code");
    return error;
}

Result<S3Listing> parse_s3_listing(std::string_view body) {
    pugi::xml_document document;
    FS_ASSIGN(const pugi::xml_node root,
              parse(document, body, {"ListBucketResult", "ListVersionsResult"}));
    const bool versions = std::string_view(root.name()) == "ListVersionsResult";
    const bool encoded = std::string_view(root.child_value("EncodingType")) == "url";
    S3Listing listing;
    FS_ASSIGN(listing.truncated, take_truncated(root));
    for (const pugi::xml_node& node : root.children()) {
        const std::string_view name = node.name();
        const bool wanted =
            versions ? name == "Version" || name == "DeleteMarker" : name == "Contents";
        if (!wanted) continue;
        if (listing.entries.size() >= kMaxEntries) return malformed("listing: it is too long");
        FS_ASSIGN(S3Entry entry, take_entry(node, encoded, versions));
        listing.entries.push_back(std::move(entry));
    }
    // Tokens are opaque and not encoded, markers are keys.
    listing.next_token = root.child_value("NextContinuationToken");
    FS_ASSIGN(listing.next_key, decoded(root.child("NextKeyMarker"), encoded));
    listing.next_version = root.child_value("NextVersionIdMarker");
    // Without it the rest could not be asked for, and would be missing without a word.
    if (listing.truncated && (versions ? listing.next_key : listing.next_token).empty())
        return malformed("listing: it is cut, and says not where it goes on");
    return listing;
}

Result<std::string> parse_s3_versioning(std::string_view body) {
    pugi::xml_document document;
    FS_ASSIGN(const pugi::xml_node root, parse(document, body, {"VersioningConfiguration"}));
    return words(root.child_value("Status"));
}

Result<std::vector<std::string>> parse_s3_expiry(std::string_view body) {
    pugi::xml_document document;
    FS_ASSIGN(const pugi::xml_node root, parse(document, body, {"LifecycleConfiguration"}));
    std::vector<std::string> found;
    for (const pugi::xml_node& rule : root.children("Rule")) {
        if (std::string_view(rule.child_value("Status")) != "Enabled") continue;
        const std::string name = words(rule.child_value("ID"));
        const pugi::xml_node expiry = rule.child("Expiration");
        for (const char* when : {"Days", "Date"}) {
            const std::string value = words(expiry.child_value(when));
            if (!value.empty())
                found.push_back(fmt::format("rule '{}' deletes objects{} ({} {})", name,
                                            scope_of(rule), when, value));
        }
        if (!rule.child("Transition").empty())
            found.push_back(
                fmt::format("rule '{}' moves objects{} to storage that answers slowly "
                            "or not at all",
                            name, scope_of(rule)));
    }
    return found;
}

Result<S3LockConfiguration> parse_s3_lock_configuration(std::string_view body) {
    pugi::xml_document document;
    FS_ASSIGN(const pugi::xml_node root, parse(document, body, {"ObjectLockConfiguration"}));
    S3LockConfiguration found;
    found.enabled = std::string_view(root.child_value("ObjectLockEnabled")) == "Enabled";
    const pugi::xml_node rule = root.child("Rule").child("DefaultRetention");
    if (!rule.empty()) {
        found.default_rule = words(rule.child_value("Mode"));
        for (const char* unit : {"Days", "Years"})
            if (const std::string n = words(rule.child_value(unit)); !n.empty())
                found.default_rule += fmt::format(", {} {}", n, unit);
    }
    return found;
}

}  // namespace farshore
