// What of each resource can be changed, as its version (vault/etag.h). Any thread may call.
#pragma once

#include <string>

#include "meta/alarms.h"
#include "meta/compute_hosts.h"
#include "meta/groups.h"
#include "meta/notifiers.h"
#include "meta/people.h"
#include "meta/policies.h"
#include "meta/recovery_plans.h"
#include "meta/sites.h"
#include "meta/stores.h"
#include "vault/vault.h"

namespace farshore {

// Name, policy, disks and how it is captured.
std::string tag_of(const ItemRecord& item);
std::string tag_of(const PolicyRecord& policy);
std::string tag_of(const GroupRecord& group);
std::string tag_of(const PlanRecord& plan);
std::string tag_of(const ComputeHostRecord& host);
std::string tag_of(const SiteRecord& site);
// Role, items, whether it is disabled.
std::string tag_of(const UserRecord& user);
std::string tag_of(const AccessTokenRecord& token);
std::string tag_of(const NotifierRecord& notifier);
std::string tag_of(const StoreReport& store);
std::string tag_of(const CopyRecord& copy);
std::string tag_of(const AlarmRecord& alarm);
std::string tag_of(const PartyRecord& party);
// Its state, and whether it was asked to end.
std::string tag_of(const JobRecord& job);

}  // namespace farshore
