#include "vault/etag.h"

#include <fmt/core.h>

#include "codec/hash.h"

namespace farshore {
namespace {

constexpr size_t kEtagBytes = 16;

bool is_etag_character(char c) {
    const auto byte = static_cast<unsigned char>(c);
    return byte == 0x21 || (byte >= 0x23 && byte != 0x7f);
}

}  // namespace

std::string etag_of(const Json& changeable) { return etag_of_text(dump_json(changeable)); }

std::string etag_of_text(std::string_view changeable) {
    const Digest digest = sha256(as_bytes(changeable));
    return '"' + to_hex(ByteView(digest).first(kEtagBytes)) + '"';
}

bool EtagList::matches(std::string_view etag, bool strongly) const {
    if (any) return true;
    for (const Tag& tag : tags)
        if (tag.text == etag && !(strongly && tag.weak)) return true;
    return false;
}

Result<EtagList> parse_etags(std::string_view text) {
    const auto bad = [] {
        return fail(Code::kMalformed, "it is no list of versions",
                    "send an ETag as it came, in its quotes, several with a comma between, or *");
    };
    const auto skip = [&](std::string_view what) {
        while (!text.empty() && what.find(text.front()) != std::string_view::npos)
            text.remove_prefix(1);
    };
    EtagList list;
    skip(" \t");
    if (text.starts_with('*')) {
        text.remove_prefix(1);
        skip(" \t");
        if (!text.empty()) return bad();
        list.any = true;
        return list;
    }
    while (true) {
        skip(" \t,");
        if (text.empty()) break;
        EtagList::Tag tag;
        if (text.starts_with("W/")) {
            tag.weak = true;
            text.remove_prefix(2);
        }
        if (!text.starts_with('"')) return bad();
        size_t end = 1;
        while (end < text.size() && is_etag_character(text[end])) ++end;
        if (end == text.size() || text[end] != '"') return bad();
        tag.text = text.substr(0, end + 1);
        text.remove_prefix(end + 1);
        list.tags.push_back(std::move(tag));
        if (list.tags.size() > kMaxEtags)
            return fail(Code::kTooLarge,
                        fmt::format("at most {} versions can be named", kMaxEtags));
        skip(" \t");
        if (!text.empty() && text.front() != ',') return bad();
    }
    if (list.tags.empty()) return bad();
    return list;
}

}  // namespace farshore
