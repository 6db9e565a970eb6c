// The resource of alarms.
#include <fmt/core.h>

#include <charconv>

#include "meta/alarms.h"
#include "meta/json_fields.h"
#include "meta/parties.h"
#include "vault/api.h"
#include "vault/api_call.h"
#include "vault/list_filters.h"
#include "vault/views.h"

namespace farshore {

// /v1/alarms[/ID/acknowledge]
Result<HttpResponse> Api::alarms(const Call& call) {
    if (call.parts.size() == 1 && call.is("GET")) {
        if (const std::string item = call.query("item"); !item.empty())
            FS_TRY(check_item(call, item));
        FS_ASSIGN(const RowQuery query, call.row_query(vault_.database()));
        const std::string all = call.query("all");
        if (!all.empty() && all != "true" && all != "false")
            return fail(Code::kInvalidArgument, "all must be true or false");
        const std::string severity = call.query("severity"), code = call.query("code"),
                          acknowledged = call.query("acknowledged");
        FS_TRY(one_of("severity", severity, {"information", "warning", "critical"}));
        FS_TRY(one_of("acknowledged", acknowledged, {"true", "false"}));
        const Severity least = severity_from_name(severity).value_or(Severity::kInformation);
        return answer_page(
            "alarms", query.limit, query.before,
            [&](uint64_t before, size_t rows) {
                return list_alarms(vault_.database(), all != "true", before, rows, query.item);
            },
            [&](const AlarmRecord& row) {
                return call.sees(row.item, row.item_name) && row.severity >= least &&
                       (code.empty() || code == row.code) &&
                       (acknowledged.empty() ||
                        (acknowledged == "true") == (row.acknowledged.us != 0));
            },
            alarm_view, [](const AlarmRecord& row) { return row.id; });
    }
    if (call.parts.size() != 3 || call.part(2) != "acknowledge" || !call.is("POST"))
        return no_such_resource(call.request);
    const std::string& text = call.part(1);
    uint64_t id = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), id);
    if (error != std::errc() || end != text.data() + text.size())
        return fail(Code::kNotFound, "there is no such alarm", "`farshore alarms` lists them");
    if (const auto asked = get_alarm(vault_.database(), id)) {
        call.attempt.item = asked->item_name;
        if (!call.sees(asked->item, asked->item_name)) {
            call.attempt.outcome = "out-of-scope";
            return fail(Code::kNotFound, fmt::format("there is no alarm {}", id),
                        "`farshore alarms --all` lists them");
        }
    }
    FS_ASSIGN(const JsonFields fields, call.fields({"note"}));
    FS_ASSIGN(const std::string note, fields.text("note", kMaxAlarmNoteBytes));
    FS_ASSIGN(const AlarmRecord alarm,
              acknowledge_alarm(vault_.database(), id, call.who().name, note));
    return answer(alarm_view(alarm));
}

}  // namespace farshore
