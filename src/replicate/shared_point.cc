#include "replicate/shared_point.h"

#include <fmt/core.h>

#include <nlohmann/json.hpp>

#include "base/text.h"
#include "replicate/limits.h"

namespace farshore {
namespace {

using nlohmann::json;

constexpr size_t kMaxDocumentBytes = 1u << 20;
constexpr size_t kMaxNameBytes = 256;
constexpr size_t kMaxWordsBytes = 1024;
constexpr std::array<std::string_view, 6> kSteps{"ready", "prepare", "freeze",
                                                 "hold",  "mark",    "abandon"};

tl::unexpected<Error> malformed(std::string_view what) {
    return fail(Code::kMalformed, fmt::format("a shared point's document: {}", what));
}

Result<json> parse(std::string_view text) {
    if (text.size() > kMaxDocumentBytes)
        return fail(Code::kTooLarge, "a shared point's document is too large");
    json document = json::parse(text, nullptr, false);
    if (document.is_discarded() || !document.is_object()) return malformed("no JSON object");
    return document;
}

Result<std::string> text_member(const json& document, const char* name, size_t limit) {
    const auto found = document.find(name);
    if (found == document.end() || !found->is_string())
        return malformed(fmt::format("'{}' must be a text", name));
    const auto& text = found->get_ref<const std::string&>();
    if (text.size() > limit) return malformed(fmt::format("'{}' is too long", name));
    return text;
}

template <typename T>
Result<T> number_member(const json& document, const char* name, T otherwise) {
    const auto found = document.find(name);
    if (found == document.end()) return otherwise;
    if (!found->is_number_integer()) return malformed(fmt::format("'{}' must be a number", name));
    return found->get<T>();
}

template <typename Id>
Result<Id> id_member(const json& document, const char* name) {
    FS_ASSIGN(const std::string text, text_member(document, name, 32));
    return Id::parse(text);
}

Result<const json*> members_of(const json& document) {
    const auto found = document.find("members");
    if (found == document.end() || !found->is_array()) return malformed("no list of members");
    if (found->size() > kMaxGroupMembers)
        return fail(Code::kTooLarge,
                    fmt::format("a shared point's document: {} members", found->size()));
    for (const json& one : *found)
        if (!one.is_object()) return malformed("a member that is no object");
    return &*found;
}

Result<BarrierStep> step_member(const json& document) {
    FS_ASSIGN(const std::string name, text_member(document, "step", 16));
    for (size_t i = 0; i < kSteps.size(); ++i)
        if (kSteps[i] == name) return static_cast<BarrierStep>(i);
    return malformed("a step that is none");
}

}  // namespace

std::string_view barrier_step_name(BarrierStep step) {
    return kSteps.at(static_cast<size_t>(step));
}

json order_json(const BarrierOrder& order) {
    json members = json::array();
    for (const BarrierMember& one : order.members)
        members.push_back({{"item", one.item.to_string()}, {"agent", one.agent}});
    return {{"point", order.point.to_string()},
            {"step", barrier_step_name(order.step)},
            {"kind", static_cast<unsigned>(order.kind)},
            {"label", order.label},
            {"members", std::move(members)}};
}

Result<BarrierOrder> order_of(const json& document) {
    if (!document.is_object()) return malformed("an order that is no object");
    BarrierOrder order;
    FS_ASSIGN(order.point, id_member<SharedPointId>(document, "point"));
    FS_ASSIGN(order.step, step_member(document));
    FS_ASSIGN(const unsigned kind, number_member<unsigned>(document, "kind", 0));
    if (kind < 1 || kind > 3) return malformed("a kind of point that is none");
    order.kind = static_cast<PointKind>(kind);
    FS_ASSIGN(order.label, text_member(document, "label", kMaxLabelBytes));
    FS_ASSIGN(const json* const members, members_of(document));
    for (const json& one : *members) {
        BarrierMember member;
        FS_ASSIGN(member.item, id_member<ItemId>(one, "item"));
        FS_ASSIGN(member.agent, text_member(one, "agent", kMaxNameBytes));
        order.members.push_back(std::move(member));
    }
    return order;
}

std::string encode_order(const BarrierOrder& order) { return order_json(order).dump(); }

Result<BarrierOrder> decode_order(std::string_view text) {
    FS_ASSIGN(const json document, parse(text));
    return order_of(document);
}

std::string encode_report(const BarrierReport& report) {
    json members = json::array();
    for (const MemberOutcome& one : report.members) {
        json member{{"item", one.item.to_string()}};
        if (one.error) {
            member["code"] = code_name(one.error->code());
            member["what"] = one.error->what().substr(0, kMaxWordsBytes);
            member["remedy"] = one.error->remedy().substr(0, kMaxWordsBytes);
        } else if (one.sequence.v != 0) {
            member["sequence"] = one.sequence.v;
            member["time_us"] = one.time.us;
        }
        members.push_back(std::move(member));
    }
    // Words of others may be no UTF-8.
    return json{{"point", report.point.to_string()},
                {"step", barrier_step_name(report.step)},
                {"members", std::move(members)}}
        .dump(-1, ' ', false, json::error_handler_t::replace);
}

Result<BarrierReport> decode_report(std::string_view text) {
    FS_ASSIGN(const json document, parse(text));
    BarrierReport report;
    FS_ASSIGN(report.point, id_member<SharedPointId>(document, "point"));
    FS_ASSIGN(report.step, step_member(document));
    FS_ASSIGN(const json* const members, members_of(document));
    for (const json& one : *members) {
        MemberOutcome member;
        FS_ASSIGN(member.item, id_member<ItemId>(one, "item"));
        if (one.contains("code")) {
            FS_ASSIGN(const std::string code, text_member(one, "code", 64));
            FS_ASSIGN(const std::string what, text_member(one, "what", 4 * kMaxWordsBytes));
            FS_ASSIGN(const std::string remedy, text_member(one, "remedy", 4 * kMaxWordsBytes));
            member.error = Error(code_from_name(code), plain_text(what), plain_text(remedy));
        } else {
            FS_ASSIGN(member.sequence.v, number_member<uint64_t>(one, "sequence", 0));
            FS_ASSIGN(member.time.us, number_member<int64_t>(one, "time_us", 0));
        }
        report.members.push_back(std::move(member));
    }
    return report;
}

}  // namespace farshore
