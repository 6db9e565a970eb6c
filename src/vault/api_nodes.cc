// The resource of vault nodes: which share the database, and who leads.
#include "meta/database.h"
#include "meta/json_fields.h"
#include "meta/nodes.h"
#include "vault/api.h"
#include "vault/api_call.h"
#include "vault/vault_metrics.h"
#include "vault/views.h"

namespace farshore {

// /v1/nodes
Result<HttpResponse> Api::nodes(const Call& call) {
    if (call.parts.size() != 1 || !call.is("GET")) return no_such_resource(call.request);
    Database& database = vault_.database();
    Json list = Json::array();
    if (database.is_shared()) {
        FS_ASSIGN(const VaultLease lease, read_vault_lease(database));
        FS_ASSIGN(const auto nodes, list_vault_nodes(database));
        for (const VaultNode& node : nodes) {
            list.push_back({{"name", node.name},
                            {"address", node.address},
                            {"version", node.version},
                            {"started", to_rfc3339(node.started)},
                            {"state", std::string(node_role(lease, node))},
                            {"silent_s", std::max<int64_t>(node.silent_us, 0) / 1'000'000},
                            {"machines", node.machines}});
        }
    }
    return answer({{"database", database.place()}, {"nodes", std::move(list)}});
}

}  // namespace farshore
