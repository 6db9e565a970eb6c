#include "meta/migrations.h"

#include <array>

namespace farshore {
namespace {

// Times are microseconds since 1970, digests and keys hexadecimal text, ids 32 hexadecimal digits.
// No column is NULL: "none" is '' or 0.
constexpr std::string_view kFirst = R"sql(
CREATE TABLE settings (
    key TEXT PRIMARY KEY NOT NULL,
    value TEXT NOT NULL
);
CREATE TABLE items (
    id TEXT PRIMARY KEY NOT NULL,
    name TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL,
    state_since_us BIGINT NOT NULL,
    mode TEXT NOT NULL,
    agent TEXT NOT NULL,
    qmp_socket TEXT NOT NULL,
    nbd_socket TEXT NOT NULL,
    machine TEXT NOT NULL,
    wrapped_key TEXT NOT NULL,
    crash_point_interval_s BIGINT NOT NULL,
    window_s BIGINT NOT NULL,
    grace_s BIGINT NOT NULL,
    copy_throttle_bytes_per_s BIGINT NOT NULL,
    resync_request TEXT NOT NULL,
    error_code TEXT NOT NULL,
    error_what TEXT NOT NULL,
    error_remedy TEXT NOT NULL,
    created_us BIGINT NOT NULL,
    updated_us BIGINT NOT NULL
);
CREATE INDEX items_by_agent ON items(agent);
CREATE TABLE item_disks (
    item_id TEXT NOT NULL REFERENCES items(id) ON DELETE CASCADE,
    disk INTEGER NOT NULL,
    path TEXT NOT NULL,
    size_bytes BIGINT NOT NULL,
    PRIMARY KEY (item_id, disk)
);
CREATE TABLE bookmarks (
    id TEXT PRIMARY KEY NOT NULL,
    item_id TEXT NOT NULL REFERENCES items(id) ON DELETE CASCADE,
    label TEXT NOT NULL,
    kind INTEGER NOT NULL,
    requested_us BIGINT NOT NULL,
    sequence BIGINT NOT NULL,
    time_us BIGINT NOT NULL
);
CREATE INDEX bookmarks_by_item ON bookmarks(item_id, sequence);
CREATE TABLE jobs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL,
    item_id TEXT NOT NULL,
    item_name TEXT NOT NULL,
    state TEXT NOT NULL,
    cancellable INTEGER NOT NULL,
    cancel_requested INTEGER NOT NULL,
    progress_permille BIGINT NOT NULL,
    eta_s BIGINT NOT NULL,
    message TEXT NOT NULL,
    input TEXT NOT NULL,
    result TEXT NOT NULL,
    error_code TEXT NOT NULL,
    error_what TEXT NOT NULL,
    error_remedy TEXT NOT NULL,
    created_us BIGINT NOT NULL,
    started_us BIGINT NOT NULL,
    ended_us BIGINT NOT NULL
);
CREATE INDEX jobs_by_state ON jobs(state, id);
CREATE INDEX jobs_by_item ON jobs(item_id, id);
CREATE TABLE job_messages (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    job_id INTEGER NOT NULL REFERENCES jobs(id) ON DELETE CASCADE,
    time_us BIGINT NOT NULL,
    text TEXT NOT NULL
);
CREATE INDEX job_messages_by_job ON job_messages(job_id, id);
CREATE TABLE parties (
    name TEXT PRIMARY KEY NOT NULL,
    kind TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    instance TEXT NOT NULL,
    version TEXT NOT NULL,
    enrolled_us BIGINT NOT NULL,
    last_seen_us BIGINT NOT NULL,
    status TEXT NOT NULL
);
CREATE TABLE enrolment_tokens (
    hash TEXT PRIMARY KEY NOT NULL,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    created_us BIGINT NOT NULL,
    expires_us BIGINT NOT NULL,
    used_us BIGINT NOT NULL
);
CREATE TABLE events (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    time_us BIGINT NOT NULL,
    severity TEXT NOT NULL,
    code TEXT NOT NULL,
    item_id TEXT NOT NULL,
    item_name TEXT NOT NULL,
    cause TEXT NOT NULL,
    remedy TEXT NOT NULL
);
CREATE INDEX events_by_item ON events(item_id, id);
CREATE TABLE failovers (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    item_id TEXT NOT NULL REFERENCES items(id) ON DELETE CASCADE,
    kind TEXT NOT NULL,
    state TEXT NOT NULL,
    sequence BIGINT NOT NULL,
    point_time_us BIGINT NOT NULL,
    lease_id BIGINT NOT NULL,
    job_id BIGINT NOT NULL,
    details TEXT NOT NULL,
    created_us BIGINT NOT NULL,
    updated_us BIGINT NOT NULL
);
CREATE INDEX failovers_by_item ON failovers(item_id, id);

CREATE TABLE ledgers (
    item_id TEXT PRIMARY KEY NOT NULL,
    epoch BIGINT NOT NULL DEFAULT 0,
    appliance TEXT NOT NULL DEFAULT '',
    last_segment BIGINT NOT NULL DEFAULT 0,
    last_header TEXT NOT NULL DEFAULT '',
    last_segment_epoch BIGINT NOT NULL DEFAULT 0,
    stored BIGINT NOT NULL DEFAULT 0,
    stored_time_us BIGINT NOT NULL DEFAULT 0,
    idle BIGINT NOT NULL DEFAULT 0,
    idle_time_us BIGINT NOT NULL DEFAULT 0,
    floor BIGINT NOT NULL DEFAULT 0,
    floor_segment BIGINT NOT NULL DEFAULT 0,
    floor_time_us BIGINT NOT NULL DEFAULT 0,
    generation BIGINT NOT NULL DEFAULT 0,
    written_bytes BIGINT NOT NULL DEFAULT 0,
    stored_bytes BIGINT NOT NULL DEFAULT 0,
    rebuilding INTEGER NOT NULL DEFAULT 0,
    tick BIGINT NOT NULL DEFAULT 0
);
CREATE TABLE ledger_segments (
    item_id TEXT NOT NULL REFERENCES ledgers(item_id) ON DELETE CASCADE,
    number BIGINT NOT NULL,
    epoch BIGINT NOT NULL,
    object_name TEXT NOT NULL,
    object_bytes BIGINT NOT NULL,
    header_hash TEXT NOT NULL,
    first BIGINT NOT NULL,
    last BIGINT NOT NULL,
    first_time_us BIGINT NOT NULL,
    last_time_us BIGINT NOT NULL,
    written_bytes BIGINT NOT NULL,
    entries BIGINT NOT NULL,
    PRIMARY KEY (item_id, number)
) WITHOUT ROWID;
CREATE INDEX ledger_segments_by_last ON ledger_segments(item_id, last);
CREATE INDEX ledger_segments_by_time ON ledger_segments(item_id, last_time_us);
CREATE TABLE ledger_points (
    item_id TEXT NOT NULL REFERENCES ledgers(item_id) ON DELETE CASCADE,
    sequence BIGINT NOT NULL,
    kind INTEGER NOT NULL,
    time_us BIGINT NOT NULL,
    label TEXT NOT NULL,
    PRIMARY KEY (item_id, sequence)
) WITHOUT ROWID;
CREATE INDEX ledger_points_by_label ON ledger_points(item_id, label, sequence);
CREATE TABLE ledger_gaps (
    item_id TEXT NOT NULL REFERENCES ledgers(item_id) ON DELETE CASCADE,
    last_good BIGINT NOT NULL,
    gap BIGINT NOT NULL,
    resynced BIGINT NOT NULL,
    last_good_time_us BIGINT NOT NULL,
    resynced_time_us BIGINT NOT NULL,
    PRIMARY KEY (item_id, last_good)
) WITHOUT ROWID;
CREATE TABLE ledger_geometry (
    item_id TEXT NOT NULL REFERENCES ledgers(item_id) ON DELETE CASCADE,
    disk INTEGER NOT NULL,
    since BIGINT NOT NULL,
    size_bytes BIGINT NOT NULL,
    PRIMARY KEY (item_id, disk, since)
) WITHOUT ROWID;
CREATE TABLE ledger_manifests (
    item_id TEXT NOT NULL REFERENCES ledgers(item_id) ON DELETE CASCADE,
    object_name TEXT NOT NULL,
    sequence BIGINT NOT NULL,
    segment BIGINT NOT NULL,
    generation BIGINT NOT NULL,
    time_us BIGINT NOT NULL,
    PRIMARY KEY (item_id, object_name)
) WITHOUT ROWID;
CREATE TABLE ledger_dead (
    item_id TEXT NOT NULL REFERENCES ledgers(item_id) ON DELETE CASCADE,
    object_name TEXT NOT NULL,
    object_bytes BIGINT NOT NULL,
    since_us BIGINT NOT NULL,
    tick BIGINT NOT NULL,
    PRIMARY KEY (item_id, object_name)
) WITHOUT ROWID;
CREATE TABLE ledger_leases (
    item_id TEXT NOT NULL REFERENCES ledgers(item_id) ON DELETE CASCADE,
    id BIGINT NOT NULL,
    tick BIGINT NOT NULL,
    sequence BIGINT NOT NULL,
    holder TEXT NOT NULL,
    expires_us BIGINT NOT NULL,
    PRIMARY KEY (item_id, id)
) WITHOUT ROWID;
)sql";

constexpr std::string_view kConsistentPoints = R"sql(
ALTER TABLE items ADD COLUMN consistent_interval_s BIGINT NOT NULL DEFAULT 0;
CREATE TABLE consistent_points (
    item_id TEXT PRIMARY KEY NOT NULL REFERENCES items(id) ON DELETE CASCADE,
    request TEXT NOT NULL,
    asked_us BIGINT NOT NULL,
    made_us BIGINT NOT NULL,
    error_code TEXT NOT NULL,
    error_what TEXT NOT NULL,
    error_remedy TEXT NOT NULL,
    failed_us BIGINT NOT NULL
);
)sql";

constexpr std::string_view kWindows = R"sql(
ALTER TABLE items ADD COLUMN rpo_threshold_s BIGINT NOT NULL DEFAULT 60;
ALTER TABLE items ADD COLUMN resync_windows TEXT NOT NULL DEFAULT '';
ALTER TABLE items ADD COLUMN resync_windows_for_all INTEGER NOT NULL DEFAULT 0;
ALTER TABLE items ADD COLUMN verify_interval_s BIGINT NOT NULL DEFAULT 0;
ALTER TABLE items ADD COLUMN bandwidth TEXT NOT NULL DEFAULT '';
CREATE TABLE resync_plans (
    item_id TEXT PRIMARY KEY NOT NULL REFERENCES items(id) ON DELETE CASCADE,
    stage TEXT NOT NULL,
    kind TEXT NOT NULL,
    request TEXT NOT NULL,
    asked_us BIGINT NOT NULL,
    finished_us BIGINT NOT NULL,
    cancel TEXT NOT NULL
);
)sql";

constexpr std::string_view kChangingDisks = R"sql(
ALTER TABLE items ADD COLUMN newest_first INTEGER NOT NULL DEFAULT 0;
ALTER TABLE ledger_geometry ADD COLUMN joining INTEGER NOT NULL DEFAULT 0;
ALTER TABLE item_disks ADD COLUMN removed INTEGER NOT NULL DEFAULT 0;
ALTER TABLE item_disks ADD COLUMN joining INTEGER NOT NULL DEFAULT 0;
CREATE TABLE seeds (
    item_id TEXT PRIMARY KEY NOT NULL REFERENCES items(id) ON DELETE CASCADE,
    sources TEXT NOT NULL,
    state TEXT NOT NULL,
    error_code TEXT NOT NULL,
    error_what TEXT NOT NULL,
    error_remedy TEXT NOT NULL,
    sampled_bytes BIGINT NOT NULL,
    differing_bytes BIGINT NOT NULL
);
)sql";

constexpr std::string_view kKeptPoints = R"sql(
ALTER TABLE items ADD COLUMN keep TEXT NOT NULL DEFAULT '';
CREATE TABLE ledger_kept (
    item_id TEXT NOT NULL REFERENCES ledgers(item_id) ON DELETE CASCADE,
    object_name TEXT NOT NULL,
    sequence BIGINT NOT NULL,
    generation BIGINT NOT NULL,
    time_us BIGINT NOT NULL,
    recorded INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    label TEXT NOT NULL,
    disks TEXT NOT NULL,
    PRIMARY KEY (item_id, object_name)
) WITHOUT ROWID;
CREATE INDEX ledger_kept_by_sequence ON ledger_kept(item_id, sequence);
)sql";

constexpr std::string_view kScrubs = R"sql(
ALTER TABLE items ADD COLUMN scrub_interval_s BIGINT NOT NULL DEFAULT 2592000;
CREATE TABLE scrubs (
    item_id TEXT PRIMARY KEY NOT NULL REFERENCES items(id) ON DELETE CASCADE,
    started_us BIGINT NOT NULL,
    ended_us BIGINT NOT NULL,
    finished_us BIGINT NOT NULL,
    after TEXT NOT NULL,
    objects BIGINT NOT NULL,
    bytes BIGINT NOT NULL,
    damaged BIGINT NOT NULL,
    error_code TEXT NOT NULL,
    error_what TEXT NOT NULL,
    error_remedy TEXT NOT NULL
);
CREATE TABLE scrub_damage (
    item_id TEXT NOT NULL REFERENCES items(id) ON DELETE CASCADE,
    object_name TEXT NOT NULL,
    code TEXT NOT NULL,
    what TEXT NOT NULL,
    chunks TEXT NOT NULL,
    found_us BIGINT NOT NULL,
    newest INTEGER NOT NULL,
    points TEXT NOT NULL,
    asked_us BIGINT NOT NULL,
    PRIMARY KEY (item_id, object_name)
) WITHOUT ROWID;
)sql";

constexpr std::string_view kChanges = R"sql(
CREATE TABLE ledger_changes (
    item_id TEXT NOT NULL REFERENCES ledgers(item_id) ON DELETE CASCADE,
    grain_s BIGINT NOT NULL,
    start_us BIGINT NOT NULL,
    disk INTEGER NOT NULL,
    records BIGINT NOT NULL,
    written_bytes BIGINT NOT NULL,
    zeroed_bytes BIGINT NOT NULL,
    dense_bytes BIGINT NOT NULL,
    regions BIGINT NOT NULL,
    PRIMARY KEY (item_id, grain_s, start_us, disk)
) WITHOUT ROWID;
)sql";

constexpr std::string_view kCopies = R"sql(
CREATE TABLE stores (
    name TEXT PRIMARY KEY NOT NULL,
    location TEXT NOT NULL,
    settings_file TEXT NOT NULL,
    store_id TEXT NOT NULL UNIQUE,
    claim_epoch TEXT NOT NULL,
    claim_id TEXT NOT NULL,
    created_us BIGINT NOT NULL
);
CREATE TABLE copies (
    item_id TEXT NOT NULL REFERENCES items(id) ON DELETE CASCADE,
    store TEXT NOT NULL REFERENCES stores(name),
    window_s BIGINT NOT NULL,
    keep TEXT NOT NULL,
    grace_s BIGINT NOT NULL,
    created_us BIGINT NOT NULL,
    removing INTEGER NOT NULL,
    scrubbed_us BIGINT NOT NULL,
    damaged BIGINT NOT NULL,
    damage TEXT NOT NULL,
    PRIMARY KEY (item_id, store)
) WITHOUT ROWID;
CREATE INDEX copies_by_store ON copies(store, item_id);
)sql";

// Lists of points by kind or label must not read them all: there may be a hundred thousand.
constexpr std::string_view kPointIndexes = R"sql(
CREATE INDEX ledger_points_by_kind ON ledger_points(item_id, kind, sequence);
CREATE INDEX ledger_kept_by_kind ON ledger_kept(item_id, kind, sequence);
CREATE INDEX ledger_kept_by_label ON ledger_kept(item_id, label, sequence);
)sql";

constexpr std::string_view kNotifiers = R"sql(
CREATE TABLE notifiers (
    name TEXT PRIMARY KEY NOT NULL,
    kind TEXT NOT NULL,
    target TEXT NOT NULL,
    settings_file TEXT NOT NULL,
    least TEXT NOT NULL,
    event_cursor BIGINT NOT NULL,
    created_us BIGINT NOT NULL,
    delivered_us BIGINT NOT NULL,
    error_code TEXT NOT NULL,
    error_what TEXT NOT NULL,
    error_remedy TEXT NOT NULL,
    failing_since_us BIGINT NOT NULL
);
)sql";

constexpr std::string_view kNodes = R"sql(
CREATE TABLE vault_lease (
    id INTEGER PRIMARY KEY NOT NULL,
    epoch BIGINT NOT NULL,
    node TEXT NOT NULL,
    address TEXT NOT NULL,
    until_us BIGINT NOT NULL
);
CREATE TABLE vault_nodes (
    name TEXT PRIMARY KEY NOT NULL,
    address TEXT NOT NULL,
    version TEXT NOT NULL,
    started_us BIGINT NOT NULL,
    machines BIGINT NOT NULL,
    seen_us BIGINT NOT NULL
);
ALTER TABLE jobs ADD COLUMN node TEXT NOT NULL DEFAULT '';
)sql";

constexpr std::string_view kAlarms = R"sql(
CREATE TABLE alarms (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    item_id TEXT NOT NULL,
    item_name TEXT NOT NULL,
    code TEXT NOT NULL,
    severity TEXT NOT NULL,
    cause TEXT NOT NULL,
    remedy TEXT NOT NULL,
    raised_us BIGINT NOT NULL,
    cleared_us BIGINT NOT NULL,
    acknowledged_us BIGINT NOT NULL,
    acknowledged_by TEXT NOT NULL,
    note TEXT NOT NULL
);
CREATE INDEX alarms_standing ON alarms(cleared_us, id);
CREATE INDEX alarms_by_item ON alarms(item_id, id);
)sql";

constexpr std::string_view kPeople = R"sql(
CREATE TABLE users (
    name TEXT PRIMARY KEY NOT NULL,
    password_hash TEXT NOT NULL,
    role TEXT NOT NULL,
    scope TEXT NOT NULL,
    disabled INTEGER NOT NULL,
    failed_logins BIGINT NOT NULL,
    locked_until_us BIGINT NOT NULL,
    created_us BIGINT NOT NULL,
    last_login_us BIGINT NOT NULL
);
CREATE TABLE access_tokens (
    id TEXT PRIMARY KEY NOT NULL,
    name TEXT NOT NULL,
    is_session INTEGER NOT NULL,
    hash TEXT NOT NULL,
    owner TEXT NOT NULL,
    role TEXT NOT NULL,
    scope TEXT NOT NULL,
    created_us BIGINT NOT NULL,
    expires_us BIGINT NOT NULL,
    last_used_us BIGINT NOT NULL,
    revoked_us BIGINT NOT NULL
);
CREATE INDEX access_tokens_by_owner ON access_tokens(owner, id);
CREATE TABLE audit (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    time_us BIGINT NOT NULL,
    known INTEGER NOT NULL,
    who TEXT NOT NULL,
    kind TEXT NOT NULL,
    token TEXT NOT NULL,
    source TEXT NOT NULL,
    method TEXT NOT NULL,
    path TEXT NOT NULL,
    operation TEXT NOT NULL,
    item TEXT NOT NULL,
    outcome TEXT NOT NULL,
    detail TEXT NOT NULL
);
CREATE INDEX audit_by_known ON audit(known, id);
CREATE TABLE party_certificates (
    name TEXT PRIMARY KEY NOT NULL,
    until_us BIGINT NOT NULL,
    warned_us BIGINT NOT NULL
);
)sql";

constexpr std::string_view kAppliances = R"sql(
CREATE TABLE appliances (
    name TEXT PRIMARY KEY NOT NULL,
    address TEXT NOT NULL,
    site TEXT NOT NULL,
    version TEXT NOT NULL,
    seen_us BIGINT NOT NULL
);
CREATE TABLE item_appliances (
    item_id TEXT PRIMARY KEY NOT NULL REFERENCES items(id) ON DELETE CASCADE,
    appliance TEXT NOT NULL,
    next_appliance TEXT NOT NULL,
    since_us BIGINT NOT NULL
);
ALTER TABLE alarms ADD COLUMN component TEXT NOT NULL DEFAULT '';
)sql";

// A policy's values have the names that they have in items: those of an item that follows one are
// the same.
constexpr std::string_view kPolicies = R"sql(
CREATE TABLE policies (
    name TEXT PRIMARY KEY NOT NULL,
    version BIGINT NOT NULL,
    created_us BIGINT NOT NULL,
    updated_us BIGINT NOT NULL,
    crash_point_interval_s BIGINT NOT NULL,
    window_s BIGINT NOT NULL,
    grace_s BIGINT NOT NULL,
    copy_throttle_bytes_per_s BIGINT NOT NULL,
    consistent_interval_s BIGINT NOT NULL,
    rpo_threshold_s BIGINT NOT NULL,
    resync_windows TEXT NOT NULL,
    resync_windows_for_all INTEGER NOT NULL,
    verify_interval_s BIGINT NOT NULL,
    bandwidth TEXT NOT NULL,
    newest_first INTEGER NOT NULL,
    keep TEXT NOT NULL,
    scrub_interval_s BIGINT NOT NULL
);
ALTER TABLE items ADD COLUMN policy TEXT NOT NULL DEFAULT '';
CREATE INDEX items_by_policy ON items(policy, name);
CREATE TABLE kept_answers (
    identity TEXT NOT NULL,
    request_key TEXT NOT NULL,
    method TEXT NOT NULL,
    target TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    run TEXT NOT NULL,
    status BIGINT NOT NULL,
    answer TEXT NOT NULL,
    created_us BIGINT NOT NULL,
    PRIMARY KEY (identity, request_key)
);
CREATE INDEX kept_answers_by_age ON kept_answers(created_us);
)sql";

// The way home of each item that is on it, as JSON (returns.h).
constexpr std::string_view kReturns = R"sql(
CREATE TABLE returns (
    item_id TEXT PRIMARY KEY NOT NULL REFERENCES items(id) ON DELETE CASCADE,
    document TEXT NOT NULL
);
)sql";

constexpr std::string_view kRecoveryPlans = R"sql(
CREATE TABLE recovery_plans (
    name TEXT PRIMARY KEY NOT NULL,
    version BIGINT NOT NULL,
    document TEXT NOT NULL,
    created_us BIGINT NOT NULL,
    updated_us BIGINT NOT NULL
);
CREATE TABLE plan_runs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    plan TEXT NOT NULL,
    mode TEXT NOT NULL,
    state TEXT NOT NULL,
    is_over INTEGER NOT NULL,
    document TEXT NOT NULL,
    wish TEXT NOT NULL,
    created_us BIGINT NOT NULL
);
CREATE INDEX plan_runs_by_plan ON plan_runs(plan, id);
CREATE INDEX plan_runs_open ON plan_runs(is_over, id);
CREATE TABLE step_answers (
    handle TEXT PRIMARY KEY NOT NULL,
    run_id BIGINT NOT NULL,
    good INTEGER NOT NULL,
    note TEXT NOT NULL,
    who TEXT NOT NULL,
    time_us BIGINT NOT NULL
);
CREATE TABLE drill_policies (
    item_id TEXT PRIMARY KEY NOT NULL REFERENCES items(id) ON DELETE CASCADE,
    document TEXT NOT NULL,
    created_us BIGINT NOT NULL
);
CREATE TABLE drills (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    item_id TEXT NOT NULL,
    item_name TEXT NOT NULL,
    recovery TEXT NOT NULL,
    verdict TEXT NOT NULL,
    sequence BIGINT NOT NULL,
    point_time_us BIGINT NOT NULL,
    created_us BIGINT NOT NULL,
    ended_us BIGINT NOT NULL,
    document TEXT NOT NULL
);
CREATE INDEX drills_by_item ON drills(item_id, id);
)sql";

// Points of groups that are gone go with them; those of an item that is gone say its name no more.
constexpr std::string_view kGroups = R"sql(
CREATE TABLE replication_groups (
    name TEXT PRIMARY KEY NOT NULL,
    version BIGINT NOT NULL,
    crash_interval_s BIGINT NOT NULL,
    application_interval_s BIGINT NOT NULL,
    created_us BIGINT NOT NULL,
    updated_us BIGINT NOT NULL
);
CREATE TABLE group_members (
    item_id TEXT PRIMARY KEY NOT NULL REFERENCES items(id) ON DELETE CASCADE,
    group_name TEXT NOT NULL REFERENCES replication_groups(name) ON DELETE CASCADE,
    joined_us BIGINT NOT NULL
);
CREATE INDEX group_members_by_group ON group_members(group_name, item_id);
CREATE TABLE shared_points (
    id TEXT PRIMARY KEY NOT NULL,
    number BIGINT NOT NULL,
    group_name TEXT NOT NULL REFERENCES replication_groups(name) ON DELETE CASCADE,
    kind TEXT NOT NULL,
    label TEXT NOT NULL,
    by_policy INTEGER NOT NULL,
    state TEXT NOT NULL,
    asked_us BIGINT NOT NULL,
    made_us BIGINT NOT NULL,
    barrier_us BIGINT NOT NULL,
    error_code TEXT NOT NULL,
    error_what TEXT NOT NULL,
    error_remedy TEXT NOT NULL
);
CREATE INDEX shared_points_by_group ON shared_points(group_name, number);
CREATE INDEX shared_points_by_state ON shared_points(state, number);
CREATE TABLE shared_point_members (
    point_id TEXT NOT NULL REFERENCES shared_points(id) ON DELETE CASCADE,
    item_id TEXT NOT NULL,
    sequence BIGINT NOT NULL,
    time_us BIGINT NOT NULL,
    PRIMARY KEY (point_id, item_id)
);
CREATE INDEX shared_point_members_by_item ON shared_point_members(item_id, sequence);
)sql";

// What recovery does with the network cards of an item.
constexpr std::string_view kItemNics = R"sql(
CREATE TABLE item_nics (
    item_id TEXT NOT NULL REFERENCES items(id) ON DELETE CASCADE,
    nic BIGINT NOT NULL,
    document TEXT NOT NULL,
    PRIMARY KEY (item_id, nic)
);
)sql";

// Hosts beside the vault's own machine. One that an item is to run on stays.
constexpr std::string_view kComputeHosts = R"sql(
CREATE TABLE compute_hosts (
    name TEXT PRIMARY KEY NOT NULL,
    version BIGINT NOT NULL,
    document TEXT NOT NULL,
    created_us BIGINT NOT NULL,
    updated_us BIGINT NOT NULL
);
CREATE TABLE item_compute (
    item_id TEXT PRIMARY KEY NOT NULL REFERENCES items(id) ON DELETE CASCADE,
    host TEXT NOT NULL REFERENCES compute_hosts(name)
);
CREATE INDEX item_compute_by_host ON item_compute(host);
)sql";

// Items whose objects are looked for once more, since some may land behind their deletion.
constexpr std::string_view kDeletedItems = R"sql(
CREATE TABLE deleted_items (
    item_id TEXT PRIMARY KEY NOT NULL,
    next_look_us BIGINT NOT NULL,
    looks BIGINT NOT NULL
);
CREATE INDEX deleted_items_by_look ON deleted_items(next_look_us);
)sql";

// Scripts that steps of recovery plans want run by appliances.
constexpr std::string_view kApplianceScripts = R"sql(
CREATE TABLE appliance_scripts (
    handle TEXT PRIMARY KEY NOT NULL,
    appliance TEXT NOT NULL,
    document TEXT NOT NULL,
    taken BIGINT NOT NULL,
    ending BIGINT NOT NULL,
    outcome TEXT NOT NULL
);
CREATE INDEX appliance_scripts_by_appliance ON appliance_scripts(appliance);
)sql";

// What people say of sites, which appliances name.
constexpr std::string_view kSites = R"sql(
CREATE TABLE sites (
    name TEXT PRIMARY KEY NOT NULL,
    version BIGINT NOT NULL,
    description TEXT NOT NULL,
    created_us BIGINT NOT NULL,
    updated_us BIGINT NOT NULL
);
CREATE INDEX appliances_by_site ON appliances(site);
ALTER TABLE item_appliances ADD COLUMN home TEXT NOT NULL DEFAULT '';
UPDATE item_appliances SET home = appliance;
CREATE INDEX item_appliances_by_home ON item_appliances(home);
)sql";

// So that a rare event is not looked for among a million, nor an appliance's items among all.
constexpr std::string_view kMoreIndexes = R"sql(
CREATE INDEX events_by_severity ON events(severity, id);
CREATE INDEX events_by_code ON events(code, severity, id);
CREATE INDEX item_appliances_by_appliance ON item_appliances(appliance);
CREATE INDEX item_appliances_by_next ON item_appliances(next_appliance);
)sql";

// An appliance's page asks for its items.
constexpr std::string_view kLedgersByAppliance = R"sql(
CREATE INDEX ledgers_by_appliance ON ledgers(appliance);
)sql";

constexpr std::array kMigrations{
    Migration{1, "first schema", kFirst},
    Migration{2, "consistent points by policy", kConsistentPoints},
    Migration{3, "windows of comparisons, bandwidth", kWindows},
    Migration{4, "disks that change while protected, seeds", kChangingDisks},
    Migration{5, "points that stay below the window", kKeptPoints},
    Migration{6, "scrubbing", kScrubs},
    Migration{7, "how disks change", kChanges},
    Migration{8, "copies in other stores", kCopies},
    Migration{9, "points by kind and label", kPointIndexes},
    Migration{10, "who is told of events", kNotifiers},
    Migration{11, "vault nodes", kNodes},
    Migration{12, "alarms", kAlarms},
    Migration{13, "users, access tokens, audit", kPeople},
    Migration{14, "appliances, alarms of components", kAppliances},
    Migration{15, "named policies, answers that are given again", kPolicies},
    Migration{16, "ways home", kReturns},
    Migration{17, "recovery plans, drills", kRecoveryPlans},
    Migration{18, "replication groups", kGroups},
    Migration{19, "network cards in a recovery", kItemNics},
    Migration{20, "compute hosts", kComputeHosts},
    Migration{21, "deleted items", kDeletedItems},
    Migration{22, "scripts on appliances", kApplianceScripts},
    Migration{23, "sites", kSites},
    Migration{24, "events by severity and code, items by appliance", kMoreIndexes},
    Migration{25, "logs by appliance", kLedgersByAppliance},
};

}  // namespace

std::span<const Migration> migrations() { return kMigrations; }

}  // namespace farshore
