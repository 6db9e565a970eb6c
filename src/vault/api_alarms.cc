// The resource of alarms.
#include <fmt/core.h>

#include <charconv>

#include "meta/alarms.h"
#include "meta/json_fields.h"
#include "vault/api.h"
#include "vault/api_call.h"
#include "vault/views.h"

namespace farshore {
namespace {

Json alarm_view(const AlarmRecord& alarm) {
    Json json{{"id", alarm.id},
              {"code", alarm.code},
              {"severity", std::string(severity_name(alarm.severity))},
              {"cause", alarm.cause},
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

}  // namespace

// /v1/alarms[/ID/acknowledge]
Result<HttpResponse> Api::alarms(const Call& call) {
    if (call.parts.size() == 1 && call.is("GET")) {
        if (const std::string item = call.query("item"); !item.empty())
            FS_TRY(check_item(call, item));
        FS_ASSIGN(const RowQuery query, call.row_query(vault_.database()));
        const std::string all = call.query("all");
        if (!all.empty() && all != "true" && all != "false")
            return fail(Code::kInvalidArgument, "all must be true or false");
        return answer_page(
            "alarms", query.limit, query.before,
            [&](uint64_t before, size_t rows) {
                return list_alarms(vault_.database(), all != "true", before, rows, query.item);
            },
            [&](const AlarmRecord& row) { return call.sees(row.item, row.item_name); }, alarm_view,
            [](const AlarmRecord& row) { return row.id; });
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
