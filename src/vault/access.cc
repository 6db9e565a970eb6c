#include "vault/access.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>

namespace farshore {
namespace {

constexpr Operation kOperations[] = {
    {"GET", "/v1/health", Reach::kOpen, Role::kReader},
    {"POST", "/v1/enrol", Reach::kOpen, Role::kReader},
    {"POST", "/v1/login", Reach::kOpen, Role::kReader},
    {"GET", "/v1/login/oidc", Reach::kOpen, Role::kReader},
    {"POST", "/v1/login/oidc", Reach::kOpen, Role::kReader},
    // Its handler looks at the one-time token in the body.
    {"POST", "/v1/plan-callbacks/{attempt}", Reach::kOpen, Role::kReader},

    {"POST", "/v1/logout", Reach::kSelf, Role::kReader},
    {"GET", "/v1/me", Reach::kSelf, Role::kReader},
    {"POST", "/v1/me/password", Reach::kSelf, Role::kReader},
    {"GET", "/v1/access-tokens", Reach::kSelf, Role::kReader},
    {"POST", "/v1/access-tokens", Reach::kSelf, Role::kReader},
    {"DELETE", "/v1/access-tokens/{token}", Reach::kSelf, Role::kReader},

    {"GET", "/v1/server", Reach::kRows, Role::kReader},
    {"GET", "/metrics", Reach::kRows, Role::kReader},
    {"GET", "/v1/plan", Reach::kRows, Role::kReader},
    {"GET", "/v1/items", Reach::kRows, Role::kReader},
    {"GET", "/v1/jobs", Reach::kRows, Role::kReader},
    {"GET", "/v1/events", Reach::kRows, Role::kReader},
    {"GET", "/v1/alarms", Reach::kRows, Role::kReader},
    {"GET", "/v1/exports", Reach::kRows, Role::kReader},
    {"GET", "/v1/changes", Reach::kRows, Role::kReader},
    {"GET", "/v1/drills", Reach::kRows, Role::kReader},
    {"GET", "/v1/policies", Reach::kRows, Role::kReader},
    {"GET", "/v1/policies/{policy}", Reach::kRows, Role::kReader},
    {"GET", "/v1/jobs/{job}", Reach::kRow, Role::kReader},
    {"GET", "/v1/bookmarks/{bookmark}", Reach::kRow, Role::kReader},
    {"GET", "/v1/drills/{drill}", Reach::kRow, Role::kReader},
    {"GET", "/v1/drills/{drill}/screenshot", Reach::kRow, Role::kReader},
    {"GET", "/v1/drills/{drill}/serial", Reach::kRow, Role::kReader},
    {"GET", "/v1/items/{item}/drill-policy", Reach::kItem, Role::kReader},
    {"GET", "/v1/items/{item}", Reach::kItem, Role::kReader},
    {"GET", "/v1/items/{item}/scrub", Reach::kItem, Role::kReader},
    {"GET", "/v1/items/{item}/points", Reach::kItem, Role::kReader},
    {"GET", "/v1/items/{item}/points/{point}", Reach::kItem, Role::kReader},
    {"GET", "/v1/items/{item}/holds", Reach::kItem, Role::kReader},
    {"GET", "/v1/items/{item}/copies", Reach::kItem, Role::kReader},
    {"GET", "/v1/items/{item}/cost", Reach::kItem, Role::kReader},
    {"GET", "/v1/items/{item}/failovers", Reach::kItem, Role::kReader},
    {"GET", "/v1/items/{item}/nics", Reach::kItem, Role::kReader},
    {"GET", "/v1/items/{item}/compute", Reach::kItem, Role::kReader},
    {"GET", "/v1/groups", Reach::kVault, Role::kReader},
    {"GET", "/v1/groups/{group}", Reach::kVault, Role::kReader},
    {"GET", "/v1/groups/{group}/points", Reach::kVault, Role::kReader},
    {"GET", "/v1/groups/{group}/points/{shared_point}", Reach::kVault, Role::kReader},
    {"GET", "/v1/drill-budget", Reach::kVault, Role::kReader},
    {"GET", "/v1/recovery-plans", Reach::kVault, Role::kReader},
    {"GET", "/v1/recovery-plans/{plan}", Reach::kVault, Role::kReader},
    {"GET", "/v1/plan-runs", Reach::kVault, Role::kReader},
    {"GET", "/v1/plan-runs/{run}", Reach::kVault, Role::kReader},
    {"GET", "/v1/plan-runs/{run}/report", Reach::kVault, Role::kReader},
    {"GET", "/v1/items/{item}/states", Reach::kItem, Role::kReader},
    {"GET", "/v1/nodes", Reach::kVault, Role::kReader},
    {"GET", "/v1/notifiers", Reach::kVault, Role::kReader},
    {"GET", "/v1/stores", Reach::kVault, Role::kReader},
    {"GET", "/v1/compute-hosts", Reach::kVault, Role::kReader},
    {"GET", "/v1/compute-hosts/{host}", Reach::kVault, Role::kReader},
    {"GET", "/v1/keys", Reach::kVault, Role::kReader},
    {"GET", "/v1/agents", Reach::kVault, Role::kReader},
    {"GET", "/v1/appliances", Reach::kVault, Role::kReader},
    {"GET", "/v1/networks", Reach::kVault, Role::kReader},
    {"GET", "/v1/sites", Reach::kVault, Role::kReader},
    {"GET", "/v1/sites/{site}", Reach::kVault, Role::kReader},
    {"GET", "/v1/health-limits", Reach::kVault, Role::kReader},

    {"POST", "/v1/items/{item}/resynchronise", Reach::kItem, Role::kOperator},
    {"POST", "/v1/items/{item}/resynchronise/cancel", Reach::kItem, Role::kOperator},
    {"POST", "/v1/items/{item}/scrub", Reach::kItem, Role::kOperator},
    {"POST", "/v1/items/{item}/bookmarks", Reach::kItem, Role::kOperator},
    {"POST", "/v1/items/{item}/exports", Reach::kItem, Role::kOperator},
    {"POST", "/v1/items/{item}/materialise", Reach::kItem, Role::kOperator},
    {"POST", "/v1/items/{item}/failovers", Reach::kItem, Role::kOperator},
    {"POST", "/v1/items/{item}/hydration", Reach::kItem, Role::kOperator},
    {"POST", "/v1/items/{item}/drills", Reach::kItem, Role::kOperator},
    {"POST", "/v1/items/{item}/return", Reach::kItem, Role::kOperator},
    // A look at an export renews it: it is not for those who only look.
    {"GET", "/v1/exports/{export}", Reach::kRow, Role::kOperator},
    {"DELETE", "/v1/exports/{export}", Reach::kRow, Role::kOperator},
    {"POST", "/v1/alarms/{alarm}/acknowledge", Reach::kRow, Role::kOperator},
    {"POST", "/v1/jobs/{job}/cancel", Reach::kRow, Role::kOperator},
    {"POST", "/v1/groups/{group}/points", Reach::kVault, Role::kOperator},
    {"POST", "/v1/notifiers/{notifier}/test", Reach::kVault, Role::kOperator},
    {"POST", "/v1/recovery-plans/{plan}/check", Reach::kVault, Role::kOperator},
    {"POST", "/v1/recovery-plans/{plan}/runs", Reach::kVault, Role::kOperator},
    {"POST", "/v1/plan-runs/{run}/stop", Reach::kVault, Role::kOperator},
    {"POST", "/v1/plan-runs/{run}/resume", Reach::kVault, Role::kOperator},
    {"POST", "/v1/plan-runs/{run}/cancel", Reach::kVault, Role::kOperator},
    {"POST", "/v1/plan-runs/{run}/cleanup", Reach::kVault, Role::kOperator},
    {"POST", "/v1/plan-runs/{run}/steps/{step}/answer", Reach::kVault, Role::kOperator},
    {"POST", "/v1/keys/verify", Reach::kVault, Role::kOperator},

    // Its handler looks at the scope: the item is not there yet.
    {"POST", "/v1/items", Reach::kRows, Role::kContributor},
    {"PATCH", "/v1/items/{item}", Reach::kItem, Role::kContributor},
    {"DELETE", "/v1/items/{item}", Reach::kItem, Role::kContributor},
    {"POST", "/v1/items/{item}/seed", Reach::kItem, Role::kContributor},
    {"POST", "/v1/items/{item}/disks", Reach::kItem, Role::kContributor},
    {"DELETE", "/v1/items/{item}/disks/{disk}", Reach::kItem, Role::kContributor},
    {"POST", "/v1/items/{item}/appliance", Reach::kItem, Role::kContributor},
    {"PATCH", "/v1/health-limits", Reach::kVault, Role::kContributor},
    {"PUT", "/v1/sites/{site}", Reach::kVault, Role::kContributor},
    {"DELETE", "/v1/sites/{site}", Reach::kVault, Role::kContributor},
    {"POST", "/v1/appliances/balance", Reach::kVault, Role::kContributor},
    {"POST", "/v1/appliances/{appliance}/evacuate", Reach::kVault, Role::kContributor},
    {"POST", "/v1/items/{item}/holds", Reach::kItem, Role::kContributor},
    {"DELETE", "/v1/items/{item}/holds/{hold}", Reach::kItem, Role::kContributor},
    {"POST", "/v1/items/{item}/copies", Reach::kItem, Role::kContributor},
    {"PATCH", "/v1/items/{item}/copies/{store}", Reach::kItem, Role::kContributor},
    {"DELETE", "/v1/items/{item}/copies/{store}", Reach::kItem, Role::kContributor},
    // Their handler looks at the scope: of the items that the body names.
    {"POST", "/v1/policies/{policy}/preview", Reach::kRows, Role::kContributor},
    {"POST", "/v1/policies/{policy}/assign", Reach::kRows, Role::kContributor},
    {"POST", "/v1/policies", Reach::kVault, Role::kContributor},
    {"PUT", "/v1/policies/{policy}", Reach::kVault, Role::kContributor},
    {"DELETE", "/v1/policies/{policy}", Reach::kVault, Role::kContributor},
    {"POST", "/v1/groups", Reach::kVault, Role::kContributor},
    {"PATCH", "/v1/groups/{group}", Reach::kVault, Role::kContributor},
    {"DELETE", "/v1/groups/{group}", Reach::kVault, Role::kContributor},
    {"POST", "/v1/groups/{group}/members", Reach::kVault, Role::kContributor},
    {"DELETE", "/v1/groups/{group}/members/{member}", Reach::kVault, Role::kContributor},
    {"PUT", "/v1/items/{item}/nics/{nic}", Reach::kItem, Role::kContributor},
    {"DELETE", "/v1/items/{item}/nics/{nic}", Reach::kItem, Role::kContributor},
    {"PUT", "/v1/items/{item}/compute", Reach::kItem, Role::kContributor},
    {"DELETE", "/v1/items/{item}/compute", Reach::kItem, Role::kContributor},
    {"PUT", "/v1/items/{item}/drill-policy", Reach::kItem, Role::kContributor},
    {"DELETE", "/v1/items/{item}/drill-policy", Reach::kItem, Role::kContributor},
    {"PUT", "/v1/drill-budget", Reach::kVault, Role::kContributor},
    {"POST", "/v1/recovery-plans", Reach::kVault, Role::kContributor},
    {"PUT", "/v1/recovery-plans/{plan}", Reach::kVault, Role::kContributor},
    {"DELETE", "/v1/recovery-plans/{plan}", Reach::kVault, Role::kContributor},
    {"POST", "/v1/jobs/{job}/retry", Reach::kRow, Role::kContributor},
    {"POST", "/v1/notifiers", Reach::kVault, Role::kContributor},
    {"DELETE", "/v1/notifiers/{notifier}", Reach::kVault, Role::kContributor},
    {"POST", "/v1/stores", Reach::kVault, Role::kContributor},
    {"DELETE", "/v1/stores/{store}", Reach::kVault, Role::kContributor},
    {"POST", "/v1/compute-hosts", Reach::kVault, Role::kContributor},
    {"PUT", "/v1/compute-hosts/{host}", Reach::kVault, Role::kContributor},
    {"DELETE", "/v1/compute-hosts/{host}", Reach::kVault, Role::kContributor},
    {"POST", "/v1/compute-hosts/{host}/check", Reach::kVault, Role::kOperator},
    {"POST", "/v1/compute-hosts/{host}/credentials", Reach::kVault, Role::kContributor},
    {"DELETE", "/v1/agents/{agent}", Reach::kVault, Role::kContributor},
    {"POST", "/v1/enrolment-tokens", Reach::kVault, Role::kContributor},

    {"POST", "/v1/keys/rotate", Reach::kVault, Role::kOwner},
    {"POST", "/v1/keys/escrow", Reach::kVault, Role::kOwner},
    {"POST", "/v1/items/{item}/key/destroy", Reach::kItem, Role::kOwner},
    {"GET", "/v1/users", Reach::kVault, Role::kOwner},
    {"POST", "/v1/users", Reach::kVault, Role::kOwner},
    {"GET", "/v1/users/{user}", Reach::kVault, Role::kOwner},
    {"PATCH", "/v1/users/{user}", Reach::kVault, Role::kOwner},
    {"DELETE", "/v1/users/{user}", Reach::kVault, Role::kOwner},
    {"POST", "/v1/users/{user}/password", Reach::kVault, Role::kOwner},
    {"GET", "/v1/audit", Reach::kVault, Role::kOwner},
};

constexpr std::array<std::string_view, 5> kKinds{"nobody", "administrator", "user", "token",
                                                 "party"};

bool is_hex(std::string_view text) {
    return text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

}  // namespace

std::string_view identity_kind_name(IdentityKind kind) {
    return kKinds.at(static_cast<size_t>(kind));
}

std::string Operation::text() const { return fmt::format("{} {}", method, path); }

std::span<const Operation> operations() { return kOperations; }

std::optional<FoundOperation> find_operation(std::string_view method,
                                             const std::vector<std::string>& parts) {
    for (const Operation& operation : kOperations) {
        if (operation.method != method) continue;
        FoundOperation found{&operation, {}};
        std::string_view path = operation.path;
        size_t at = 0;
        bool same = true;
        for (; same && !path.empty(); ++at) {
            path.remove_prefix(1);
            const std::string_view want = path.substr(0, path.find('/'));
            path.remove_prefix(want.size());
            same = at < parts.size() && (want.front() == '{' || parts[at] == want);
            if (same && want == "{item}") found.item = parts[at];
        }
        if (same && at == parts.size()) return found;
    }
    return {};
}

Status check_role(const Identity& identity, const Operation& operation) {
    if (operation.reach == Reach::kOpen) return {};
    if (identity.role < operation.least)
        return fail(Code::kForbidden,
                    fmt::format("this needs the role {}; yours is {}", role_name(operation.least),
                                role_name(identity.role)),
                    "an owner can change it: `farshore user set`");
    if (operation.reach == Reach::kVault && !identity.scope.all)
        return fail(Code::kForbidden,
                    fmt::format("this needs the role {} for all items; yours is for some",
                                role_name(operation.least)),
                    "an owner can change it: `farshore user set --all-items`");
    return {};
}

Role lesser(Role a, Role b) { return std::min(a, b); }

Scope intersection(const Scope& a, const Scope& b) {
    if (a.all) return b;
    if (b.all) return a;
    Scope both;
    both.all = false;
    std::ranges::set_intersection(a.items, b.items, std::back_inserter(both.items));
    return both;
}

std::optional<TokenText> parse_token(std::string_view text) {
    constexpr std::string_view kPrefix = "fs_";
    constexpr size_t kIdEnd = kPrefix.size() + 2 * kTokenIdBytes;
    if (text.size() != kIdEnd + 1 + 2 * kTokenSecretBytes || !text.starts_with(kPrefix) ||
        text[kIdEnd] != '_')
        return {};
    const std::string_view id = text.substr(kPrefix.size(), 2 * kTokenIdBytes);
    const std::string_view secret = text.substr(kIdEnd + 1);
    if (!is_hex(id) || !is_hex(secret)) return {};
    return TokenText{std::string(id), std::string(secret)};
}

std::string format_token(const TokenText& token) {
    return fmt::format("fs_{}_{}", token.id, token.secret);
}

}  // namespace farshore
