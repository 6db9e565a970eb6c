// The resource of notifiers: who is told of events.
#include "meta/json_fields.h"
#include "meta/parties.h"
#include "vault/api.h"
#include "vault/api_call.h"
#include "vault/notifications.h"
#include "vault/tags.h"
#include "vault/views.h"

namespace farshore {
namespace {

Json notifier_view(const NotifierRecord& record) {
    Json json{{"name", record.name},
              {"kind", std::string(notifier_kind_name(record.kind))},
              {"target", record.target},
              {"settings", record.settings_file},
              {"severity", std::string(severity_name(record.least))},
              {"etag", tag_of(record)},
              {"created", to_rfc3339(record.created)}};
    if (record.delivered.us != 0) json["delivered"] = to_rfc3339(record.delivered);
    if (record.error) {
        json["error"] = problem_view(*record.error);
        json["failing_since"] = to_rfc3339(record.failing_since);
    }
    return json;
}

}  // namespace

// /v1/notifiers[/NAME[/test]]
Result<HttpResponse> Api::notifiers(const Call& call) {
    if (notifications_ == nullptr) return fail(Code::kUnsupported, "this vault notifies nobody");
    if (call.parts.size() == 1 && call.is("GET")) {
        FS_ASSIGN(const auto records, notifications_->list());
        Json list = Json::array();
        for (const NotifierRecord& record : records) list.push_back(notifier_view(record));
        return answer({{"notifiers", std::move(list)}});
    }
    if (call.parts.size() == 1 && call.is("POST")) {
        FS_ASSIGN(const JsonFields fields,
                  call.fields({"name", "kind", "target", "settings", "severity"}));
        AddNotifierRequest request;
        FS_ASSIGN(request.name, fields.required_text("name", 256));
        FS_ASSIGN(request.kind, fields.required_text("kind", 64));
        FS_ASSIGN(request.target, fields.required_text("target", 2048));
        FS_ASSIGN(request.settings_file, fields.required_text("settings", kMaxPathBytes));
        FS_ASSIGN(request.least, fields.text("severity", 64, "warning"));
        FS_ASSIGN(const NotifierRecord record, notifications_->add(request));
        return answer(notifier_view(record), 201);
    }
    if (call.parts.size() == 2 && call.is("DELETE")) {
        FS_TRY(notifications_->remove(call.part(1)));
        return nothing();
    }
    if (call.parts.size() == 3 && call.part(2) == "test" && call.is("POST")) {
        FS_ASSIGN(const JsonFields fields, call.fields({}));
        FS_TRY(notifications_->test(call.part(1)));
        return nothing();
    }
    return no_such_resource(call.request);
}

}  // namespace farshore
