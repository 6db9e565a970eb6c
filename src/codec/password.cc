#include "codec/password.h"

#include <fmt/core.h>

#include <array>
#include <charconv>
#include <vector>

#include "codec/hash.h"

namespace farshore {
namespace {

constexpr std::string_view kAlgorithm = "argon2id";
constexpr std::string_view kVersion = "v=19";

std::string unpadded_base64(ByteView bytes) {
    std::string text = to_base64(bytes);
    while (!text.empty() && text.back() == '=') text.pop_back();
    return text;
}

Result<Bytes> from_unpadded_base64(std::string_view text) {
    std::string padded(text);
    while (padded.size() % 4 != 0) padded.push_back('=');
    return from_base64(padded);
}

tl::unexpected<Error> no_hash() { return fail(Code::kMalformed, "not the hash of a password"); }

// "m=65536" to 65536.
bool read_cost(std::string_view& text, char name, uint32_t& value) {
    if (text.size() < 3 || text[0] != name || text[1] != '=') return false;
    const auto [end, error] = std::from_chars(text.data() + 2, text.data() + text.size(), value);
    if (error != std::errc()) return false;
    text.remove_prefix(static_cast<size_t>(end - text.data()));
    if (!text.empty() && text[0] == ',') text.remove_prefix(1);
    return true;
}

}  // namespace

Status check_new_password(const Secret& password) {
    const size_t bytes = password.reveal().size();
    if (bytes < kMinPassphraseBytes || bytes > kMaxPassphraseBytes)
        return fail(
            Code::kInvalidArgument, fmt::format("password: it has {} bytes", bytes),
            fmt::format("take one of {} to {} bytes", kMinPassphraseBytes, kMaxPassphraseBytes));
    return {};
}

Result<std::string> hash_password(const Secret& password, const KdfCost& cost, Random& random) {
    std::array<uint8_t, kSaltBytes> salt{};
    random.fill(salt);
    FS_ASSIGN(const Secret hash, derive_key(password, salt, cost));
    return fmt::format("${}${}$m={},t={},p={}${}${}", kAlgorithm, kVersion, cost.memory_kib,
                       cost.passes, cost.lanes, unpadded_base64(salt),
                       unpadded_base64(hash.reveal()));
}

Result<bool> is_password(const Secret& password, std::string_view hashed) {
    std::vector<std::string_view> parts;
    for (size_t from = 0; from <= hashed.size() && parts.size() <= 6;) {
        const size_t end = std::min(hashed.find('$', from), hashed.size());
        parts.push_back(hashed.substr(from, end - from));
        from = end + 1;
    }
    if (parts.size() != 6 || !parts[0].empty() || parts[1] != kAlgorithm || parts[2] != kVersion)
        return no_hash();
    KdfCost cost;
    std::string_view costs = parts[3];
    if (!read_cost(costs, 'm', cost.memory_kib) || !read_cost(costs, 't', cost.passes) ||
        !read_cost(costs, 'p', cost.lanes) || !costs.empty())
        return no_hash();
    const auto salt = from_unpadded_base64(parts[4]);
    const auto hash = from_unpadded_base64(parts[5]);
    if (!salt || !hash) return no_hash();
    FS_ASSIGN(const Secret derived, derive_key(password, *salt, cost));
    const ByteView got = derived.reveal();
    if (got.size() != hash->size()) return no_hash();
    volatile uint8_t difference = 0;
    for (size_t i = 0; i < got.size(); ++i)
        difference = static_cast<uint8_t>(difference | (got[i] ^ (*hash)[i]));
    return difference == 0;
}

}  // namespace farshore
