#include "replica/vault_fence.h"

#include <fmt/core.h>

#include "replica/log_walk.h"

namespace farshore {

namespace {

constexpr char kPrefix[] = "vault/";
// Claims against other vaults that start at the same moment.
constexpr int kAttempts = 16;

std::string name_of(Epoch epoch) { return fmt::format("{}{:016x}", kPrefix, epoch.v); }

uint64_t epoch_of(const std::string& name) {
    uint64_t v = 0;
    for (const char c : std::string_view(name).substr(sizeof kPrefix - 1)) {
        const int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
        if (digit < 0) return 0;  // not ours
        v = v << 4 | static_cast<uint64_t>(digit);
    }
    return v;
}

}  // namespace

Result<VaultFence::Claim> VaultFence::newest(ObjectStore& store) {
    FS_ASSIGN(const auto infos, list_all(store, kPrefix));
    Claim claim;
    std::string name;
    for (const ObjectInfo& info : infos) {
        const Epoch epoch{epoch_of(info.name)};
        if (epoch.v <= claim.epoch.v) continue;
        claim.epoch = epoch;
        name = info.name;
    }
    if (name.empty()) return claim;
    FS_ASSIGN(const Bytes object, store.get(name));
    // A claim whose text can't be read is somebody's all the same: the id stays empty.
    const std::string_view text = as_text(object);
    constexpr std::string_view kIdLine = "\nid ";
    const size_t at = text.find(kIdLine);
    if (at != std::string_view::npos)
        claim.id = text.substr(at + kIdLine.size(),
                               text.find('\n', at + kIdLine.size()) - at - kIdLine.size());
    return claim;
}

Result<VaultFence> VaultFence::claim(ObjectStore& store, Clock& clock, Random& random,
                                     const std::string& who, std::string id, Epoch at_least) {
    // The id tells our own claim, whose answer was lost, from that of another vault.
    if (id.empty()) {
        std::array<uint8_t, 16> raw;
        random.fill(raw);
        id = to_hex(raw);
    }
    const std::string text =
        fmt::format("farshore-vault 1\nid {}\nwho {}\nat {}\n", id, who, to_rfc3339(clock.now()));
    FS_ASSIGN(const auto infos, list_all(store, kPrefix));
    uint64_t newest = 0;
    for (const ObjectInfo& info : infos) newest = std::max(newest, epoch_of(info.name));
    if (newest < at_least.v) newest = at_least.v - 1;
    for (int attempt = 0; attempt < kAttempts; ++attempt) {
        const Epoch epoch{++newest};
        const Status put = put_idempotent(store, name_of(epoch), as_bytes(text));
        if (put) {
            // Older claims only say who was here; a few are kept for people.
            constexpr uint64_t kKept = 16;
            for (const ObjectInfo& info : infos) {
                const uint64_t old = epoch_of(info.name);
                if (old != 0 && old + kKept < epoch.v) (void)store.remove(info.name);
            }
            return VaultFence(store, epoch);
        }
        if (put.error().code() != Code::kAlreadyExists) return fail(put.error());
    }
    return fail(Code::kUnavailable, "other vaults keep claiming the store",
                "run one vault on one store");
}

Status VaultFence::still_mine() const {
    const std::string own = name_of(epoch_);
    FS_ASSIGN(const auto found, store_->list(kPrefix, name_of({epoch_.v - 1}), 2));
    for (const ObjectInfo& info : found)
        if (info.name > own)
            return fail(Code::kFenced,
                        fmt::format("vault epoch {} was fenced: {} has been claimed since",
                                    epoch_.v, info.name),
                        "another vault runs on this store; stop this one");
    if (!found.empty()) return {};
    // A store without our claim is another place, or an empty mount point. (Or its listing lags.)
    const auto there = store_->head(own);
    if (!there && there.error().code() == Code::kNotFound)
        return fail(Code::kUnavailable,
                    fmt::format("the store does not hold this vault's claim {}", own),
                    "look whether the right place is mounted");
    if (!there) return fail(there.error());
    return {};
}

}  // namespace farshore
