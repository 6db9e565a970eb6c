#include "codec/key_file.h"

#include <fmt/core.h>

#include "codec/envelope.h"
#include "codec/hash.h"

namespace farshore {
namespace {

constexpr std::string_view kIdDomain = "farshore-key-id";
constexpr size_t kIdBytes = 8;
constexpr size_t kMaxFileBytes = 4096;
constexpr std::string_view kRemedy =
    "give the key file that 'farshore up' or 'farshore vault' wrote, unchanged";

auto malformed(std::string_view what) {
    return fail(Code::kMalformed, fmt::format("key file: {}", what), std::string(kRemedy));
}

std::string parent_of(const std::string& path) {
    const size_t slash = path.rfind('/');
    if (slash == std::string::npos) return ".";
    return slash == 0 ? "/" : path.substr(0, slash);
}

}  // namespace

std::string key_id(const Secret& key) {
    Sha256 hash;
    hash.update(as_bytes(kIdDomain));
    hash.update(key.reveal());
    return to_hex(ByteView(hash.finish()).first(kIdBytes));
}

KeyFile make_key_file(Random& random) {
    Secret key = make_key(random);
    std::string id = key_id(key);
    return {std::move(id), std::move(key)};
}

Secret format_key_file(const KeyFile& key) {
    Bytes out;
    // Reserved in full, so that no copy of the key is left behind by growth.
    out.reserve(kMaxFileBytes);
    ByteWriter writer(out);
    writer.bytes(
        as_bytes("# Farshore key-encryption key. Keep a copy away from the site that it protects:\n"
                 "# without it no replica can be read, with it every replica can.\n"
                 "farshore-key 1\n"));
    writer.bytes(as_bytes(fmt::format("id {}\nkey ", key.id)));
    for (uint8_t b : key.key.reveal()) {
        static constexpr char kDigits[] = "0123456789abcdef";
        writer.u8(static_cast<uint8_t>(kDigits[b >> 4]));
        writer.u8(static_cast<uint8_t>(kDigits[b & 15]));
    }
    writer.u8('\n');
    return Secret(std::move(out));
}

Result<KeyFile> parse_key_file(std::string_view text) {
    if (text.size() > kMaxFileBytes) return malformed("longer than any key file");
    bool versioned = false;
    std::string id;
    Secret key;
    while (!text.empty()) {
        const size_t end = text.find('\n');
        std::string_view line = text.substr(0, end);
        text = end == std::string_view::npos ? std::string_view{} : text.substr(end + 1);
        while (!line.empty() && (line.back() == '\r' || line.back() == ' ')) line.remove_suffix(1);
        if (line.empty() || line.front() == '#') continue;
        const size_t space = line.find(' ');
        const std::string_view word = line.substr(0, space);
        const std::string_view value =
            space == std::string_view::npos ? std::string_view{} : line.substr(space + 1);
        if (!versioned) {
            if (word != "farshore-key") return malformed("does not start with 'farshore-key 1'");
            if (value != "1")
                return fail(Code::kNewerVersion,
                            fmt::format("key file of version '{}'", value.substr(0, 16)),
                            "this version reads version 1; upgrade");
            versioned = true;
        } else if (word == "id" && id.empty()) {
            id = std::string(value);
        } else if (word == "key" && key.empty()) {
            auto raw = from_hex(value);
            if (!raw || raw->size() != kKeyBytes)
                return malformed("the key is not 64 hexadecimal digits");
            key = Secret(std::move(*raw));
        } else {
            return malformed("a line that does not belong there");
        }
    }
    if (!versioned) return malformed("empty");
    if (id.empty()) return malformed("no id");
    if (key.empty()) return malformed("no key");
    if (id != key_id(key)) return malformed("id and key do not belong together");
    return KeyFile{std::move(id), std::move(key)};
}

Result<KeyFile> load_key_file(FileSystem& files, const std::string& path) {
    const auto context = [&](const Error& error) {
        return fail(Error(error.code(), fmt::format("key file {}: {}", path, error.what()),
                          error.remedy().empty() ? std::string(kRemedy) : error.remedy()));
    };
    auto file = files.open(path, OpenMode::kRead);
    if (!file) return context(file.error());
    Bytes raw(kMaxFileBytes + 1);
    auto n = (*file)->read_at(0, raw);
    if (!n) return context(n.error());
    const Secret text{ByteView(raw).first(*n)};
    std::fill(raw.begin(), raw.end(), uint8_t{0});
    auto key = parse_key_file(as_text(text.reveal()));
    if (!key) return context(key.error());
    return key;
}

Status save_key_file(FileSystem& files, const std::string& path, const KeyFile& key) {
    FS_ASSIGN(auto file, files.open(path, OpenMode::kCreateNew));
    const Secret text = format_key_file(key);
    FS_TRY(file->write_at(0, text.reveal()));
    FS_TRY(file->sync());
    return files.sync_directory(parent_of(path));
}

Status check_key(const KeyFile& key, std::string_view wanted_id) {
    if (key.id == wanted_id) return {};
    return fail(Code::kWrongKey,
                fmt::format("this is key {}, the data was sealed under key {}", key.id,
                            wanted_id.substr(0, 32)),
                fmt::format("give the key file with id {}", wanted_id.substr(0, 32)));
}

}  // namespace farshore
