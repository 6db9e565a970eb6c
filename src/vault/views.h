// Our values as the documents of api/openapi.yaml. For .cc files only: it pulls in the JSON
// library.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "meta/alarms.h"
#include "recovery/recovery_state.h"
#include "vault/vault.h"

namespace farshore {

nlohmann::json problem_view(const Error& error);
nlohmann::json problem_view(const ItemError& error);
nlohmann::json troubles_view(const std::vector<Trouble>& troubles);
nlohmann::json load_view(const MachineLoad& load);
// A JSON object; of these a page has many.
std::string item_text(const ItemReport& report);
nlohmann::json suspicious_view(const SuspiciousChange& suspicious);
nlohmann::json scrub_view(const ScrubReport& report);
nlohmann::json point_view(Sequence sequence, TimePoint time);
nlohmann::json point_view(const PointRow& point);
nlohmann::json kept_view(const KeptRow& row);
// The indexes of the disks that a point has.
nlohmann::json point_disks_view(const std::vector<GeometryRow>& geometry, Sequence sequence);
nlohmann::json bookmark_view(const BookmarkReport& report);
nlohmann::json job_view(const JobRecord& job);
nlohmann::json alarm_view(const AlarmRecord& alarm);
nlohmann::json event_view(const EventRecord& event);
nlohmann::json party_view(const PartyReport& report);
nlohmann::json export_view(const RecoveryState& state, uint64_t size_bytes);
nlohmann::json failover_view(const RecoveryState& state);
// Null when it is on none.
nlohmann::json way_home_view(const ItemReport& report);
nlohmann::json states_view(ItemState state);

// An NBD URI on a unix socket; an empty export name is the default export.
std::string nbd_uri(const std::string& socket, const std::string& export_name);

}  // namespace farshore
