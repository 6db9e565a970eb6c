#include "vault/views.h"

#include <fmt/core.h>

#include "meta/json_fields.h"
#include "os/http.h"
#include "replica/log_walk.h"
#include "vault/json_text.h"
#include "vault/policy.h"
#include "vault/tags.h"

namespace farshore {
namespace {

Json problem(Code code, const std::string& detail, const std::string& remedy) {
    static constexpr const char* kRetry[] = {"never", "soon", "later"};
    const std::string name(code_name(code));
    std::string title = name;
    std::replace(title.begin(), title.end(), '-', ' ');
    Json json{{"type", "urn:farshore:error:" + name},
              {"title", title},
              {"status", code_http_status(code)},
              {"code", name},
              {"detail", detail},
              {"retry", kRetry[static_cast<size_t>(code_retry(code))]}};
    if (!remedy.empty()) json["remedy"] = remedy;
    return json;
}

double seconds(int64_t us) { return static_cast<double>(us) / 1e6; }

Json parsed_or_null(const std::string& text) {
    if (text.empty()) return nullptr;
    Json json = Json::parse(text, nullptr, false);
    return json.is_discarded() ? Json(nullptr) : json;
}

}  // namespace

std::string nbd_uri(const std::string& socket, const std::string& export_name) {
    return fmt::format("nbd+unix:///{}?socket={}", percent_encode(export_name), socket);
}

Json problem_view(const Error& error) {
    return problem(error.code(), error.what(), error.remedy());
}
Json problem_view(const ItemError& error) { return problem(error.code, error.what, error.remedy); }

Json point_view(Sequence sequence, TimePoint time) {
    return {{"sequence", sequence.v}, {"time", to_rfc3339(time)}};
}

Json point_view(const PointRow& point) {
    Json json = point_view(point.sequence, point.time);
    json["kind"] = std::string(point_kind_name(point.kind));
    if (!point.label.empty()) json["label"] = point.label;
    return json;
}

Json kept_view(const KeptRow& row) {
    Json json = point_view(row.sequence, row.time);
    if (row.recorded) json["kind"] = std::string(point_kind_name(row.kind));
    if (!row.label.empty()) json["label"] = row.label;
    json["kept"] = true;
    json["disks"] = Json::array();
    for (const DiskSize& disk : row.disks)
        if (!disk.joining) json["disks"].push_back(disk.disk);
    return json;
}

Json point_disks_view(const std::vector<GeometryRow>& geometry, Sequence sequence) {
    Json disks = Json::array();
    for (const DiskSize& disk : disks_at(geometry, sequence))
        if (!disk.joining) disks.push_back(disk.disk);
    return disks;
}

Json suspicious_view(const SuspiciousChange& suspicious) {
    const ChangeBreak& change = suspicious.change;
    Json json{{"disk", change.disk},
              {"reason", std::string(change_reason_name(change.reason))},
              {"from", to_rfc3339(change.from)},
              {"until", to_rfc3339(change.until)},
              {"bytes", change.bytes},
              {"usual_bytes", change.usual_bytes}};
    if (suspicious.before)
        json["point_before"] = point_view(suspicious.before->sequence, suspicious.before->time);
    return json;
}

Json scrub_view(const ScrubReport& report) {
    const ScrubRecord& scrub = report.scrub;
    const auto word = [&] {
        if (report.job) return report.job->state == JobState::kQueued ? "queued" : "running";
        if (scrub.started.us == 0) return "never";
        if (scrub.finished >= scrub.started) return "done";
        return "interrupted";
    };
    Json damage = Json::array();
    for (const DamageRecord& row : report.damage) {
        Json json{{"object", row.object_name},
                  {"code", std::string(code_name(row.code))},
                  {"cause", row.what},
                  {"found", to_rfc3339(row.found)},
                  {"newest_point", row.newest}};
        Json points = parsed_or_null(row.points);
        json["points"] = points.is_object()
                             ? std::move(points)
                             : Json{{"ranges", Json::array()}, {"kept", Json::array()}};
        if (row.asked.us != 0) json["asked_source"] = to_rfc3339(row.asked);
        damage.push_back(std::move(json));
    }
    Json json{{"state", word()},
              {"objects", scrub.objects},
              {"read_bytes", scrub.bytes},
              {"found_damaged", scrub.damaged},
              {"interval_s", report.interval_s},
              {"damaged", std::move(damage)}};
    if (scrub.started.us != 0) json["started"] = to_rfc3339(scrub.started);
    if (scrub.finished.us != 0) json["finished"] = to_rfc3339(scrub.finished);
    if (scrub.error) json["error"] = problem_view(*scrub.error);
    if (report.job) json["job"] = report.job->id;
    if (report.interval_s != 0 && !report.job)
        json["next"] = to_rfc3339({std::max({scrub.finished, scrub.ended, report.created}).us +
                                   int64_t{report.interval_s} * 1'000'000});
    return json;
}

Json troubles_view(const std::vector<Trouble>& troubles) {
    Json list = Json::array();
    for (const Trouble& trouble : troubles) {
        Json json{{"severity", std::string(severity_name(trouble.severity))},
                  {"code", trouble.code},
                  {"cause", trouble.cause}};
        if (!trouble.remedy.empty()) json["remedy"] = trouble.remedy;
        list.push_back(std::move(json));
    }
    return list;
}

Json load_view(const MachineLoad& load) {
    Json json{{"process_bytes", load.process_bytes}};
    if (load.cpu_permille >= 0) json["cpu_percent"] = load.cpu_permille / 10.0;
    if (load.memory_permille >= 0) json["memory_percent"] = load.memory_permille / 10.0;
    return json;
}

namespace {

void write_disks(JsonText& text, const ItemRecord& item) {
    text.begin_list("disks");
    for (const DesiredDisk& disk : item.disks) {
        text.begin().member("index", disk.index);
        text.member("state", disk.removed ? "removed" : disk.joining ? "joining" : "protected");
        if (!disk.path.empty()) text.member("path", disk.path);
        if (disk.size_bytes != 0) text.member("size_bytes", disk.size_bytes);
        if (!item.nbd_socket.empty() && !disk.removed)
            text.member("nbd_uri", nbd_uri(item.nbd_socket, std::to_string(disk.index)));
        text.end();
    }
    text.end_list();
}

void write_upload(JsonText& text, const ItemReport& report) {
    const UploadStatus& upload = *report.upload;
    text.begin("upload")
        .member("limited", upload.limited)
        .member("waiting_bytes", upload.waiting_bytes)
        .member("sent_bytes", upload.sent_bytes);
    if (upload.rate != kUnlimited) {
        text.member("limit_bytes_per_s", upload.rate);
        text.member("limit_of", upload.total_counts ? "appliance" : "item");
    }
    if (upload.eta_s >= 0) text.member("eta_s", upload.eta_s);
    if (report.bandwidth_change) text.member("limit_changes", to_rfc3339(*report.bandwidth_change));
    text.end();
}

void write_resync_plan(JsonText& text, const ItemReport& report) {
    const ItemRecord& item = report.record;
    text.begin("resync_plan")
        .member("stage", resync_stage_name(report.resync.stage))
        .member("windows", report.resync_windows)
        .member("window_open", report.resync_window_open)
        .member("held", report.agent && report.agent->resync.held);
    if (report.resync.stage != ResyncStage::kNone) {
        text.member("kind", resync_kind_name(report.resync.kind));
        text.member("asked", to_rfc3339(report.resync.asked));
    }
    if (report.resync_window_change)
        text.member(report.resync_window_open ? "window_closes" : "window_opens",
                    to_rfc3339(*report.resync_window_change));
    if (report.resync.finished.us != 0) text.member("finished", to_rfc3339(report.resync.finished));
    if (const uint32_t interval_s = item.policy.verify_interval_s; interval_s != 0)
        text.member("next_check", to_rfc3339({std::max(report.resync.finished, item.created).us +
                                              int64_t{interval_s} * 1'000'000}));
    text.end();
}

void write_agent(JsonText& text, const AgentItemStatus& agent, uint64_t stored) {
    text.member("lag_bytes", agent.ring_used_bytes + agent.spill_used_bytes)
        .member("lag_records", agent.last.v > stored ? agent.last.v - stored : 0)
        .member("copied_bytes", agent.copied_bytes)
        .member("copy_total_bytes", agent.copy_total_bytes)
        .member("copy_rate_bytes_per_s", agent.copy_rate_bytes_per_s)
        .member("compared_bytes", agent.compared_bytes)
        .member("dirty_regions", agent.dirty_regions)
        .member("dirty_map_syncs", agent.dirty_map_syncs);
    const ResyncStatus& resync = agent.resync;
    // An agent that starts has not looked yet: "none" would be taken for the end.
    const bool looked = agent.state != AgentItemState::kStarting;
    text.begin("resync")
        .member("state", looked ? resync_state_name(resync.state) : "unknown")
        .member("request", agent.resync_done_id)
        .member("total_bytes", resync.total)
        .member("compared_bytes", resync.compared)
        .member("differing_bytes", resync.differing)
        .member("sent_bytes", resync.sent)
        .member("unreadable_bytes", resync.unreadable)
        .member("verified_bytes", resync.verified)
        .member("verify_failures", resync.verify_failures)
        .end();
    if (agent.copied_bytes >= agent.copy_total_bytes)
        text.member("eta_s", 0);
    else if (agent.copy_rate_bytes_per_s != 0)
        text.member("eta_s",
                    (agent.copy_total_bytes - agent.copied_bytes) / agent.copy_rate_bytes_per_s);
    text.member("tap_restarts", agent.tap_restarts);
}

void write_replica(JsonText& text, const ReplicaStatus& replica) {
    if (replica.oldest)
        text.member("oldest_point", point_view(*replica.oldest, replica.oldest_time));
    if (replica.newest)
        text.member("newest_point", point_view(*replica.newest, replica.newest_time));
    text.member("stored_sequence", replica.stored.v);
    if (replica.stored.v != 0) text.member("stored_time", to_rfc3339(replica.stored_time));
    text.member("written_bytes", replica.written_bytes);
    text.member("stored_bytes", replica.stored_bytes);
}

void write_drill(JsonText& text, const DrillBadge& badge) {
    text.begin("drill");
    if (!badge.verdict.empty()) {
        text.member("verdict", badge.verdict);
        text.member("last", to_rfc3339(badge.last));
    }
    if (badge.good) {
        text.member("last_good", to_rfc3339(*badge.good));
        text.member("last_good_age_s", badge.good_age_us / 1'000'000);
        text.member("last_good_drill", badge.drill.value_or(0));
    }
    text.end();
}

}  // namespace

std::string item_text(const ItemReport& report) {
    const ItemRecord& item = report.record;
    JsonText text;
    text.begin()
        .member("id", item.id.to_string())
        .member("name", item.name)
        .member("state", item_state_name(item.state))
        .member("state_since", to_rfc3339(item.state_since))
        .member("health", health_name(report.troubles))
        .member("troubles", troubles_view(report.troubles))
        .member("mode", capture_mode_name(item.mode))
        .member("agent", item.agent);
    write_disks(text, item);
    write_policy(text, "policy", item.policy);
    text.member("policy_name", item.policy_name.empty() ? "custom" : item.policy_name)
        .member("etag", tag_of(item))
        .member("created", to_rfc3339(item.created));
    if (const ItemAppliance& has = report.appliance; !has.now.empty()) {
        text.begin("appliance").member("name", has.now).member("since", to_rfc3339(has.since));
        if (!has.next.empty()) text.member("next", has.next);
        text.end();
        if (!report.site.empty()) text.member("site", report.site);
    }
    if (!item.qmp_socket.empty()) text.member("qmp_socket", item.qmp_socket);
    if (!item.nbd_socket.empty()) {
        text.member("nbd_socket", item.nbd_socket);
        text.member("nbd_uri", nbd_uri(item.nbd_socket, "0"));
    }
    if (item.machine.starts_with('{') && Json::accept(item.machine))
        text.raw("machine", item.machine);
    if (report.seed) {
        const SeedRecord& seed = *report.seed;
        text.begin("seed")
            .member("state", seed_state_name(seed.state))
            .member("sources", Json(seed.sources))
            .member("sampled_bytes", seed.sampled_bytes)
            .member("differing_bytes", seed.differing_bytes);
        if (seed.error) text.member("error", problem_view(*seed.error));
        text.end();
    }
    if (const Json way = way_home_view(report); !way.is_null()) text.member("way_home", way);
    if (!item.resync_request.empty()) text.member("resync_requested", item.resync_request);
    if (report.upload) write_upload(text, report);
    write_resync_plan(text, report);
    if (const uint32_t interval_s = item.policy.consistent_interval_s; interval_s != 0) {
        text.begin("consistent_points").member("interval_s", interval_s);
        if (report.consistent.made.us != 0)
            text.member("last_time", to_rfc3339(report.consistent.made));
        if (report.consistent.error) {
            text.member("error", problem_view(*report.consistent.error));
            text.member("error_time", to_rfc3339(report.consistent.failed));
        }
        text.end();
    }
    if (report.agent_seen) text.member("agent_seen", to_rfc3339(*report.agent_seen));
    if (report.rpo_us) text.member("rpo_s", seconds(*report.rpo_us));
    if (report.clock_ahead_us) text.member("clock_ahead_s", seconds(*report.clock_ahead_us));
    if (report.rpo_worst_us) text.member("rpo_worst_s", seconds(*report.rpo_worst_us));
    if (report.agent)
        write_agent(text, *report.agent, report.replica ? report.replica->stored.v : 0);
    if (report.replica) write_replica(text, *report.replica);
    if (report.drill) write_drill(text, *report.drill);
    return text.end().text();
}

Json bookmark_view(const BookmarkReport& report) {
    const BookmarkRecord& bookmark = report.record;
    const bool made = bookmark.sequence.v != 0;
    Json json{{"id", bookmark.id},
              {"label", bookmark.label},
              {"kind", std::string(point_kind_name(bookmark.kind))},
              {"state", report.stored ? "stored"
                        : made        ? "made"
                                      : "requested"}};
    if (made) {
        json["sequence"] = bookmark.sequence.v;
        json["time"] = to_rfc3339(bookmark.time);
    }
    return json;
}

Json job_view(const JobRecord& job) {
    Json json{{"id", job.id},
              {"kind", job.kind},
              {"state", std::string(job_state_name(job.state))},
              {"cancellable", job.cancellable},
              {"progress", job.progress_permille / 1000.0},
              {"message", job.message},
              {"etag", tag_of(job)},
              {"created", to_rfc3339(job.created)}};
    if (job.item) json["item_id"] = job.item->to_string();
    if (!job.item_name.empty()) json["item"] = job.item_name;
    if (job.eta_s >= 0) json["eta_s"] = job.eta_s;
    if (Json result = parsed_or_null(job.result); !result.is_null())
        json["result"] = std::move(result);
    if (job.error) json["error"] = problem_view(*job.error);
    if (job.started.us != 0) json["started"] = to_rfc3339(job.started);
    if (job.ended.us != 0) json["ended"] = to_rfc3339(job.ended);
    return json;
}

Json event_view(const EventRecord& event) {
    Json json{{"id", event.id},
              {"time", to_rfc3339(event.time)},
              {"severity", std::string(severity_name(event.severity))},
              {"code", event.code},
              {"cause", event.cause}};
    if (event.item) json["item_id"] = event.item->to_string();
    if (!event.item_name.empty()) json["item"] = event.item_name;
    if (!event.remedy.empty()) json["remedy"] = event.remedy;
    return json;
}

Json alarm_view(const AlarmRecord& alarm) {
    Json json{{"id", alarm.id},
              {"code", alarm.code},
              {"severity", std::string(severity_name(alarm.severity))},
              {"cause", alarm.cause},
              {"etag", tag_of(alarm)},
              {"raised", to_rfc3339(alarm.raised)}};
    if (!alarm.remedy.empty()) json["remedy"] = alarm.remedy;
    if (alarm.item) json["item_id"] = alarm.item->to_string();
    if (!alarm.item_name.empty()) json["item"] = alarm.item_name;
    if (!alarm.component.empty()) json["component"] = alarm.component;
    if (alarm.cleared.us != 0) json["cleared"] = to_rfc3339(alarm.cleared);
    if (alarm.acknowledged.us != 0) {
        json["acknowledged"] = to_rfc3339(alarm.acknowledged);
        json["acknowledged_by"] = alarm.acknowledged_by;
        if (!alarm.note.empty()) json["note"] = alarm.note;
    }
    return json;
}

Json party_view(const PartyReport& report) {
    const PartyRecord& party = report.record;
    Json json{{"name", party.name},
              {"kind", std::string(party_kind_name(party.kind))},
              {"version", party.version},
              {"connected", report.connected},
              {"fingerprint", party.fingerprint},
              {"etag", tag_of(party)},
              {"enrolled", to_rfc3339(party.enrolled)}};
    if (report.load) json["load"] = load_view(*report.load);
    if (report.clock_ahead_us) json["clock_ahead_s"] = seconds(*report.clock_ahead_us);
    if (party.last_seen.us != 0) json["last_seen"] = to_rfc3339(party.last_seen);
    return json;
}

Json export_view(const RecoveryState& state, uint64_t size_bytes) {
    return {{"id", state.id},
            {"item", state.item_name},
            {"disk", state.export_disk},
            {"socket", state.export_socket},
            {"uri", nbd_uri(state.export_socket, "")},
            {"copy", state.copy},
            {"point", point_view(state.sequence, state.point_time)},
            {"size_bytes", size_bytes}};
}

// It is not, or not any more, where its machine counts.
static bool is_on_its_way(RecoveryStage stage) {
    return stage == RecoveryStage::kMoving || stage == RecoveryStage::kArriving ||
           stage == RecoveryStage::kCleaning;
}

Json failover_view(const RecoveryState& state) {
    Json timings{{"requested", to_rfc3339(state.timings.requested)}};
    if (state.timings.disks_ready_ms >= 0) timings["disks_ready_ms"] = state.timings.disks_ready_ms;
    if (state.timings.machine_started_ms >= 0)
        timings["machine_started_ms"] = state.timings.machine_started_ms;
    if (state.timings.first_read_ms >= 0) timings["first_read_ms"] = state.timings.first_read_ms;
    Json json{{"id", state.id},
              {"item", state.item_name},
              {"kind", std::string(recovery_kind_name(state.kind))},
              {"state", state.committed && !is_on_its_way(state.stage)
                            ? "committed"
                            : std::string(recovery_stage_name(state.stage))},
              {"point", point_view(state.sequence, state.point_time)},
              {"created", to_rfc3339(state.timings.requested)},
              {"timings", std::move(timings)}};
    if (state.committed) json["hydrated"] = state.hydrated;
    for (const auto& [index, disk] : state.own)
        json["files"].push_back({{"disk", index},
                                 {"path", disk.path},
                                 {"format", std::string(disk_format_name(state.own_format))},
                                 {"in_use", is_own(state, index)}});
    if (stands_alone(state)) json["stands_alone"] = true;
    if (!state.compute.empty()) json["compute"] = state.compute;
    if (!state.copy.empty()) json["copy"] = state.copy;
    if (!state.note.empty()) json["note"] = state.note;
    Json nics = Json::array();
    for (size_t i = 0; i < state.machine.nics.size(); ++i) {
        nics.push_back({{"nic", i},
                        {"mac", state.machine.nics[i].mac},
                        {"network", network_word(network_of(state, i))}});
        if (const auto at = state.addresses.find(static_cast<uint32_t>(i));
            at != state.addresses.end()) {
            nics.back()["address"] = at->second.address;
            nics.back()["by"] = std::string(address_by_name(at->second.by));
        }
    }
    if (state.address_stage != AddressStage::kNone) {
        json["addresses"] = {{"state", std::string(address_stage_name(state.address_stage))}};
        if (!state.address_words.empty()) json["addresses"]["why"] = state.address_words;
    }
    if (state.kind != RecoveryKind::kExport) json["nics"] = std::move(nics);
    if (state.undecided != Undecided::kWaits && !state.committed) {
        json["then"] = std::string(undecided_name(state.undecided));
        json["decided_at"] = to_rfc3339(state.decide_at);
    }
    if (!state.accelerator_words.empty()) json["accelerator"] = state.accelerator_words;
    if (state.error)
        json["error"] =
            problem_view(ItemError{state.error->code, state.error->what, state.error->remedy});
    return json;
}

Json way_home_view(const ItemReport& report) {
    if (!report.way_home) return nullptr;
    const ReturnRecord& way = report.way_home->record;
    Json disks = Json::array();
    for (const DesiredDisk& disk : way.disks)
        if (!disk.removed) disks.push_back({{"index", disk.index}, {"path", disk.path}});
    Json json{{"agent", way.agent},
              {"mode", std::string(capture_mode_name(way.mode))},
              {"disks", std::move(disks)},
              {"original", way.original},
              {"begun", to_rfc3339(way.begun)}};
    if (!way.appliance.empty()) json["appliance"] = way.appliance;
    if (way.to.v != 0) json["target"] = point_view(way.to, way.to_time);
    if (!report.way_home->home) return json;
    const AgentItemStatus& home = *report.way_home->home;
    json["home"] = {{"state", std::string(agent_item_state_name(home.state))},
                    {"have", home.way_home.have.v},
                    {"held", home.way_home.held},
                    {"total_bytes", home.way_home.total},
                    {"compared_bytes", home.way_home.compared},
                    {"differing_bytes", home.way_home.differing},
                    {"written_bytes", home.way_home.written}};
    if (home.error)
        json["home"]["error"] =
            problem_view(ItemError{home.error->code, home.error->what, home.error->remedy});
    return json;
}

Json states_view(ItemState state) {
    Json actions = Json::array(), next = Json::array();
    for (const ItemAction action : possible_actions(state))
        if (action != ItemAction::kReplicate)
            actions.push_back(std::string(item_action_name(action)));
    for (const ItemState one : next_states(state))
        next.push_back(std::string(item_state_name(one)));
    return {{"state", std::string(item_state_name(state))},
            {"actions", std::move(actions)},
            {"next", std::move(next)}};
}

}  // namespace farshore
