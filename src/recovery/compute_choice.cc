#include "recovery/compute_choice.h"

#include "meta/compute_hosts.h"
#include "meta/json_fields.h"

namespace farshore {
namespace {

constexpr size_t kMaxDocumentBytes = 16u << 10;

}  // namespace

Result<ComputeHostSettings> settings_of(const ComputeHostRecord& host) {
    const std::string what = "the compute host '" + host.name + "'";
    FS_ASSIGN(const Json json, parse_json(host.document, what, kMaxDocumentBytes));
    return compute_host_from_json(json, what);
}

Result<ComputeChoice> compute_choice(Database& database, const ItemId& item) {
    FS_ASSIGN(const std::optional<std::string> host, item_compute(database, item));
    if (!host) return ComputeChoice{std::string(kLocalHost), {}};
    FS_ASSIGN(const ComputeHostRecord record, get_compute_host(database, *host));
    FS_ASSIGN(ComputeHostSettings settings, settings_of(record));
    return ComputeChoice{*host, std::move(settings)};
}

}  // namespace farshore
