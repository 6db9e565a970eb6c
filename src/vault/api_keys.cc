// The verbs of keys: what there is, rotation, checks, escrow, destruction.
#include <fmt/core.h>

#include "meta/json_fields.h"
#include "vault/api.h"
#include "vault/api_call.h"
#include "vault/recovery_desk.h"
#include "vault/views.h"

namespace farshore {

Result<HttpResponse> Api::keys(const Call& call) {
    const std::string& what = call.part(1);
    if (call.parts.size() == 1 && call.is("GET")) {
        FS_ASSIGN(const KeysReport report, vault_.keys());
        Json items = Json::object();
        for (const auto& [id, count] : report.items) items[id.empty() ? "none" : id] = count;
        Json json{{"id", report.id},
                  {"source", report.source},
                  {"remote", report.remote},
                  {"items", std::move(items)}};
        if (report.rotation) {
            json["rotation"] = {{"from", report.rotation->from},
                                {"to", report.rotation->to},
                                {"source", report.rotation->source}};
            if (report.rotation->job != 0) json["rotation"]["job"] = report.rotation->job;
        }
        if (!report.verified_json.empty())
            json["verified"] = Json::parse(report.verified_json, nullptr, false);
        return answer(json);
    }
    if (call.parts.size() != 2 || !call.is("POST")) return no_such_resource(call.request);
    FS_ASSIGN(const JsonFields fields, call.fields({"to", "passphrase", "public_key_pem"}));
    if (what == "rotate") {
        FS_ASSIGN(const std::string to, fields.text("to", 4096));
        FS_ASSIGN(const JobRecord job, vault_.rotate_key(to));
        return answer(job_view(job), 202);
    }
    if (what == "verify") {
        FS_ASSIGN(const JobRecord job, vault_.verify_keys());
        return answer(job_view(job), 202);
    }
    if (what == "escrow") {
        EscrowRequest escrow;
        FS_ASSIGN(std::string passphrase, fields.text("passphrase", kMaxPassphraseBytes));
        escrow.passphrase = Secret(as_bytes(passphrase));
        std::fill(passphrase.begin(), passphrase.end(), '\0');
        FS_ASSIGN(escrow.public_key_pem, fields.text("public_key_pem", 64u << 10));
        FS_ASSIGN(const Bytes document, vault_.escrow_keys(escrow));
        return answer({{"escrow", as_text(document)}});
    }
    return no_such_resource(call.request);
}

// POST /v1/items/NAME/key/destroy
Result<HttpResponse> Api::item_key(const Call& call) {
    if (call.part(3) != "destroy" || call.parts.size() != 4 || !call.is("POST"))
        return no_such_resource(call.request);
    FS_ASSIGN(const JsonFields fields, call.fields({"confirm", "end_replication"}));
    FS_ASSIGN(const std::string confirm, fields.text("confirm", 256));
    FS_ASSIGN(const bool end_replication, fields.boolean("end_replication"));
    if (recovery_ != nullptr) {
        FS_ASSIGN(const auto states, recovery_->failovers(call.part(1)));
        if (!states.empty())
            return fail(Code::kWrongState,
                        fmt::format("{} of this item is there", states.front().id),
                        "clean up its test failovers; a machine that runs from it needs its key");
    }
    FS_ASSIGN(const JobRecord job, vault_.destroy_key(call.part(1), confirm, end_replication));
    return answer(job_view(job), 202);
}

}  // namespace farshore
