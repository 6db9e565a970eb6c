// The resources of stores beside the vault's own, and of copies of items in them.
#include <fmt/core.h>

#include "meta/json_fields.h"
#include "vault/api.h"
#include "vault/api_call.h"
#include "vault/tags.h"
#include "vault/views.h"

namespace farshore {
namespace {

constexpr uint64_t kMaxCopyWindowS = 366ull * 24 * 3600;

Json store_view(const StoreReport& report) {
    Json json{{"name", report.name},       {"location", report.location}, {"id", report.store_id},
              {"primary", report.primary}, {"open", report.open},         {"copies", report.copies},
              {"etag", tag_of(report)}};
    if (report.error) json["error"] = problem_view(*report.error);
    return json;
}

Json copy_view(const CopyReport& report) {
    const CopyRecord& record = report.record;
    const bool seeding = report.status.seeding;
    std::string state = "waiting";  // for its store, or its turn
    if (record.removing)
        state = "removing";
    else if (report.error)
        state = "failing";
    else if (seeding)
        state = "seeding";
    else if (report.replica)
        state = "following";
    Json json{{"store", record.store},
              {"state", state},
              {"window_s", record.window_s},
              {"keep", record.keep},
              {"etag", tag_of(record)},
              {"created", to_rfc3339(record.created)},
              {"behind_segments", report.behind_segments},
              {"behind_s", report.behind_us / 1'000'000},
              {"stored_bytes", report.stored_bytes},
              {"copied_bytes", report.status.copied_bytes},
              {"damaged", record.damaged}};
    if (seeding) {
        json["seed_objects"] = report.status.seed_objects;
        json["seed_objects_total"] = report.status.seed_objects_total;
    }
    if (report.replica && report.replica->oldest) {
        json["oldest"] = point_view(*report.replica->oldest, report.replica->oldest_time);
        json["newest"] = point_view(*report.replica->newest, report.replica->newest_time);
    }
    if (record.scrubbed.us != 0) json["scrubbed"] = to_rfc3339(record.scrubbed);
    if (!record.damage.empty()) json["damage"] = record.damage;
    if (report.error) json["error"] = problem_view(*report.error);
    return json;
}

Result<CopyPolicy> read_copy_policy(const JsonFields& fields, const Json& body) {
    CopyPolicy policy;
    if (body.contains("window_s")) {
        FS_ASSIGN(const uint64_t window_s, fields.u64("window_s", 0, kMaxCopyWindowS));
        policy.window_s = static_cast<uint32_t>(window_s);
    }
    if (body.contains("keep")) {
        FS_ASSIGN(policy.keep, fields.text("keep", 1024));
    }
    return policy;
}

}  // namespace

Result<HttpResponse> Api::stores(const Call& call) {
    if (call.parts.size() == 1 && call.is("GET")) {
        FS_ASSIGN(const auto reports, vault_.stores());
        Json list = Json::array();
        for (const StoreReport& report : reports) list.push_back(store_view(report));
        return answer({{"stores", std::move(list)}});
    }
    if (call.parts.size() == 1 && call.is("POST")) {
        FS_ASSIGN(const JsonFields fields,
                  call.fields({"name", "location", "settings", "take_over"}));
        AddStoreRequest request;
        FS_ASSIGN(request.name, fields.required_text("name", 256));
        FS_ASSIGN(request.location, fields.required_text("location", kMaxPathBytes));
        FS_ASSIGN(request.settings_file, fields.text("settings", kMaxPathBytes));
        FS_ASSIGN(request.take_over, fields.boolean("take_over", false));
        FS_ASSIGN(const StoreReport report, vault_.add_store(request));
        return answer(store_view(report), 201);
    }
    if (call.parts.size() == 2 && call.is("DELETE")) {
        FS_TRY(vault_.remove_store(call.part(1)));
        return nothing();
    }
    return no_such_resource(call.request);
}

// /v1/items/NAME/copies[/STORE]
Result<HttpResponse> Api::copies(const Call& call) {
    const std::string& name = call.part(1);
    if (call.parts.size() == 3 && call.is("GET")) {
        FS_ASSIGN(const auto reports, vault_.copies(name));
        Json list = Json::array();
        for (const CopyReport& report : reports) list.push_back(copy_view(report));
        return answer({{"copies", std::move(list)}});
    }
    if (call.parts.size() == 3 && call.is("POST")) {
        FS_ASSIGN(const JsonFields fields, call.fields({"store", "window_s", "keep"}));
        FS_ASSIGN(const std::string store, fields.required_text("store", 256));
        FS_ASSIGN(const CopyPolicy policy, read_copy_policy(fields, call.body));
        FS_ASSIGN(const CopyReport report, vault_.add_copy(name, store, policy));
        return answer(copy_view(report), 201);
    }
    if (call.parts.size() == 4 && call.is("PATCH")) {
        FS_ASSIGN(const JsonFields fields, call.fields({"window_s", "keep"}));
        FS_ASSIGN(const CopyPolicy policy, read_copy_policy(fields, call.body));
        FS_ASSIGN(const CopyReport report, vault_.change_copy(name, call.part(3), policy));
        return answer(copy_view(report));
    }
    if (call.parts.size() == 4 && call.is("DELETE")) {
        const bool points = call.query("points") == "delete";
        FS_ASSIGN(const auto job, vault_.remove_copy(name, call.part(3), points));
        if (!job) return nothing();
        return answer(job_view(*job), 202);
    }
    return no_such_resource(call.request);
}

}  // namespace farshore
