#include "recovery/recovery_plan.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <map>
#include <set>

#include "base/script_names.h"
#include "meta/json_fields.h"
#include "meta/json_members.h"

namespace farshore {
namespace {

constexpr std::array<std::string_view, kPlanModes> kModeNames{"test", "failover", "failback"};
constexpr std::array<std::string_view, 3> kSourceNames{"leave", "shut-down", "planned"};
constexpr std::array<std::string_view, 2> kOnFailureNames{"stop", "skip"};
constexpr std::array<std::string_view, 6> kKindNames{"item",    "script", "guest-script",
                                                     "webhook", "manual", "appliance-script"};
constexpr size_t kMaxNameBytes = 128;
constexpr size_t kMaxTextBytes = 4096;
constexpr size_t kMaxArguments = 64;

template <size_t N>
Result<size_t> index_of(const std::array<std::string_view, N>& names, std::string_view name,
                        std::string_view what) {
    std::string all;
    for (size_t i = 0; i < N; ++i) {
        if (names[i] == name) return i;
        all += fmt::format("{}{}", all.empty() ? "" : ", ", names[i]);
    }
    return fail(Code::kMalformed, fmt::format("'{}' is not {}", name.substr(0, 64), what),
                "it is one of " + all);
}

Json limits_json(const StepLimits& limits) {
    return {{"limit_s", limits.limit_s},
            {"retries", limits.retries},
            {"retry_pause_s", limits.retry_pause_s},
            {"on_failure", std::string(on_failure_name(limits.on_failure))}};
}

Result<StepLimits> limits_of(const JsonFields& fields) {
    const StepLimits usual;
    StepLimits limits;
    FS_ASSIGN(const uint64_t limit, fields.u64("limit_s", usual.limit_s, kMaxStepLimitS));
    FS_ASSIGN(const uint64_t retries, fields.u64("retries", usual.retries, kMaxStepRetries));
    FS_ASSIGN(const uint64_t pause, fields.u64("retry_pause_s", usual.retry_pause_s, 3600));
    FS_ASSIGN(const std::string what, fields.text("on_failure", 16, "stop"));
    if (limit == 0) return fields.wrong("limit_s", "must be at least 1");
    auto on_failure =
        index_of(kOnFailureNames, what, fmt::format("a value of {}.on_failure", fields.path()));
    FS_TRY(on_failure);
    limits.limit_s = static_cast<uint32_t>(limit);
    limits.retries = static_cast<uint32_t>(retries);
    limits.retry_pause_s = static_cast<uint32_t>(pause);
    limits.on_failure = static_cast<OnFailure>(*on_failure);
    return limits;
}

Result<std::vector<std::string>> texts(const JsonFields& fields, const char* key) {
    FS_ASSIGN(const Json* list, fields.array(key, kMaxArguments));
    std::vector<std::string> out;
    for (size_t i = 0; list != nullptr && i < list->size(); ++i) {
        if (!(*list)[i].is_string()) return fields.wrong(key, "must be a list of texts");
        out.push_back((*list)[i].get<std::string>());
        if (out.back().size() > kMaxTextBytes || out.back().find('\0') != std::string::npos)
            return fields.wrong(key, "has a text that is too long, or with a null character");
    }
    return out;
}

// A name that people see: anything, but on one line.
Result<std::string> shown_name(const JsonFields& fields) {
    FS_ASSIGN(std::string name, fields.required_text("name", kMaxNameBytes));
    if (std::ranges::any_of(name, [](unsigned char c) { return c < 0x20 || c == 0x7f; }))
        return fields.wrong("name", "must not have control characters");
    return name;
}

// A name and a password before the host would make any host look like the loopback, and be shown
// to whoever reads the plan.
Status check_url(const JsonFields& fields, const std::string& url) {
    if (!url.starts_with("https://") && !url.starts_with("http://127.0.0.1:"))
        return fields.wrong("url", "must begin with https://");
    const size_t host = url.find("//") + 2;
    const std::string_view authority =
        std::string_view(url).substr(host, url.find_first_of("/?#", host) - host);
    if (authority.find_first_of("@\\") != authority.npos)
        return fields.wrong("url", "must have no user name");
    return {};
}

Result<std::optional<NetworkChoice>> network_field(const JsonFields& fields, const char* key) {
    FS_ASSIGN(const std::string word, fields.text(key, kMaxNetworkWordBytes));
    if (word.empty()) return std::nullopt;
    auto network = network_from_word(word);
    if (!network) return fail(network.error().with_context(fields.path() + "." + key));
    return std::optional(std::move(*network));
}

Result<std::vector<PlanAction>> actions_of(const JsonFields& fields, const char* key) {
    FS_ASSIGN(const Json* list, fields.array(key, kMaxPlanActions));
    std::vector<PlanAction> actions;
    for (size_t i = 0; list != nullptr && i < list->size(); ++i) {
        FS_ASSIGN(
            PlanAction action,
            plan_action_from_json((*list)[i], fmt::format("{}.{}[{}]", fields.path(), key, i)));
        actions.push_back(std::move(action));
    }
    return actions;
}

Json actions_json(const std::vector<PlanAction>& actions) {
    Json list = Json::array();
    for (const PlanAction& action : actions) list.push_back(plan_action_json(action));
    return list;
}

// What only the whole can tell.
Status check_plan(const RecoveryPlan& plan) {
    std::map<std::string, size_t> group_of;  // by item
    std::set<std::string> names;
    size_t actions = plan.shutdown.size();
    for (size_t i = 0; i < plan.groups.size(); ++i) {
        const PlanGroup& group = plan.groups[i];
        if (!names.insert(group.name).second)
            return fail(Code::kInvalidArgument,
                        fmt::format("two groups are called '{}'", group.name),
                        "give each a name of its own");
        for (const PlanItem& item : group.items)
            if (!group_of.emplace(item.name, i).second)
                return fail(Code::kInvalidArgument,
                            fmt::format("item '{}' is in the plan twice", item.name),
                            "name it in one group");
        actions += group.before.size() + group.after.size();
    }
    if (group_of.empty())
        return fail(Code::kInvalidArgument, "the plan has no items", "name at least one");
    if (group_of.size() > kMaxPlanItems || actions > kMaxPlanActions)
        return fail(Code::kTooLarge, fmt::format("a plan has at most {} items and {} actions",
                                                 kMaxPlanItems, kMaxPlanActions));
    // A machine must have been started before something runs inside it.
    const auto check_guest = [&](const PlanAction& action, size_t first_later) -> Status {
        if (action.kind != StepKind::kGuestScript) return {};
        const auto at = group_of.find(action.item);
        if (at != group_of.end() && at->second < first_later) return {};
        return fail(Code::kInvalidArgument,
                    fmt::format("action '{}' runs inside of '{}', which is not started before it",
                                action.name, action.item),
                    "name an item of an earlier group, or of its own when it comes after it");
    };
    for (const PlanAction& action : plan.shutdown) FS_TRY(check_guest(action, 0));
    for (size_t i = 0; i < plan.groups.size(); ++i) {
        for (const PlanAction& action : plan.groups[i].before) FS_TRY(check_guest(action, i));
        for (const PlanAction& action : plan.groups[i].after) FS_TRY(check_guest(action, i + 1));
    }
    return {};
}

}  // namespace

std::string_view plan_mode_name(PlanMode mode) { return kModeNames.at(static_cast<size_t>(mode)); }

Result<PlanMode> plan_mode_from_name(std::string_view name) {
    FS_ASSIGN(const size_t at, index_of(kModeNames, name, "a mode of a recovery plan"));
    return static_cast<PlanMode>(at);
}

std::string_view plan_source_name(PlanSource source) {
    return kSourceNames.at(static_cast<size_t>(source));
}

Result<PlanSource> plan_source_from_name(std::string_view name) {
    FS_ASSIGN(const size_t at, index_of(kSourceNames, name, "what becomes of a source"));
    return static_cast<PlanSource>(at);
}

std::string_view on_failure_name(OnFailure what) {
    return kOnFailureNames.at(static_cast<size_t>(what));
}

std::string_view step_kind_name(StepKind kind) { return kKindNames.at(static_cast<size_t>(kind)); }

Result<StepKind> step_kind_from_name(std::string_view name) {
    FS_ASSIGN(const size_t at, index_of(kKindNames, name, "a kind of step"));
    return static_cast<StepKind>(at);
}

Status check_plan_name(std::string_view name) {
    const bool good =
        !name.empty() && name.size() <= kMaxPlanNameBytes &&
        name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-") == name.npos &&
        name.find_first_of("abcdefghijklmnopqrstuvwxyz") != name.npos;
    if (good) return {};
    return fail(Code::kInvalidArgument,
                fmt::format("'{}' cannot be a recovery plan's name", name.substr(0, 64)),
                fmt::format("1 to {} of a-z, 0-9 and -, with a letter", kMaxPlanNameBytes));
}

Json plan_action_json(const PlanAction& action) {
    Json json = limits_json(action.limits);
    json["name"] = action.name;
    json["kind"] = std::string(step_kind_name(action.kind));
    json["for"] = Json::array();
    for (int i = 0; i < kPlanModes; ++i)
        if (action.modes[i])
            json["for"].push_back(std::string(kModeNames.at(static_cast<size_t>(i))));
    switch (action.kind) {
        case StepKind::kItem:
            break;
        case StepKind::kScript:
        case StepKind::kGuestScript:
        case StepKind::kApplianceScript:
            if (action.kind == StepKind::kGuestScript) json["item"] = action.item;
            if (action.kind == StepKind::kApplianceScript) json["appliance"] = action.appliance;
            json["program"] = action.program;
            json["arguments"] = action.arguments;
            break;
        case StepKind::kWebhook:
            json["url"] = action.url;
            json["settings"] = action.settings_file;
            json["callback"] = action.wait_for_callback;
            break;
        case StepKind::kManual:
            json["instructions"] = action.instructions;
            break;
    }
    return json;
}

Result<PlanAction> plan_action_from_json(const Json& json, const std::string& path) {
    FS_ASSIGN(const JsonFields fields, JsonFields::of(json, path));
    PlanAction action;
    FS_ASSIGN(action.name, shown_name(fields));
    FS_ASSIGN(const std::string kind, fields.required_text("kind", 32));
    auto known = index_of(kKindNames, kind, fmt::format("a value of {}.kind", path));
    if (!known || static_cast<StepKind>(*known) == StepKind::kItem)
        return fail(Code::kMalformed,
                    fmt::format("{}.kind: there is no action '{}'", path, kind.substr(0, 64)),
                    "it is one of script, appliance-script, guest-script, webhook, manual");
    action.kind = static_cast<StepKind>(*known);
    FS_ASSIGN(action.limits, limits_of(fields));
    FS_ASSIGN(const Json* modes, fields.array("for", kPlanModes));
    for (size_t i = 0; modes != nullptr && i < modes->size(); ++i) {
        if (!(*modes)[i].is_string()) return fields.wrong("for", "must be a list of texts");
        FS_ASSIGN(const size_t mode, index_of(kModeNames, (*modes)[i].get<std::string>(),
                                              fmt::format("a value of {}.for", path)));
        action.modes[mode] = true;
    }
    if (std::ranges::find(action.modes, true) == std::end(action.modes))
        return fields.wrong("for", "must say in what it is done: test, failover, failback");
    const auto members = [&](std::initializer_list<std::string_view> own) -> Status {
        for (const auto& [name, value] : json.items()) {
            static constexpr std::array<std::string_view, 7> kCommon{
                "name", "kind", "for", "limit_s", "retries", "retry_pause_s", "on_failure"};
            if (std::ranges::find(kCommon, name) != kCommon.end()) continue;
            if (std::ranges::find(own, name) != own.end()) continue;
            return fail(Code::kMalformed, fmt::format("{} of kind {} has no member '{}'", path,
                                                      kind, name.substr(0, 64)));
        }
        return {};
    };
    switch (action.kind) {
        case StepKind::kItem:
            break;
        case StepKind::kScript: {
            FS_TRY(members({"program", "arguments"}));
            FS_ASSIGN(action.program, fields.required_text("program", kMaxNameBytes));
            FS_TRY(check_script_name(action.program));
            FS_ASSIGN(action.arguments, texts(fields, "arguments"));
            break;
        }
        case StepKind::kApplianceScript: {
            FS_TRY(members({"appliance", "program", "arguments"}));
            FS_ASSIGN(action.appliance, fields.required_text("appliance", kMaxNameBytes));
            FS_ASSIGN(action.program, fields.required_text("program", kMaxNameBytes));
            FS_TRY(check_script_name(action.program));
            FS_ASSIGN(action.arguments, texts(fields, "arguments"));
            break;
        }
        case StepKind::kGuestScript: {
            FS_TRY(members({"item", "program", "arguments"}));
            if (action.modes[static_cast<size_t>(PlanMode::kFailback)])
                return fields.wrong("for", "cannot be failback: the machine is at home then");
            FS_ASSIGN(action.item, fields.required_text("item", kMaxNameBytes));
            FS_ASSIGN(action.program, fields.required_text("program", kMaxTextBytes));
            FS_ASSIGN(action.arguments, texts(fields, "arguments"));
            break;
        }
        case StepKind::kWebhook: {
            FS_TRY(members({"url", "settings", "callback"}));
            FS_ASSIGN(action.url, fields.required_text("url", 2048));
            FS_TRY(check_url(fields, action.url));
            FS_ASSIGN(action.settings_file, fields.required_text("settings", kMaxTextBytes));
            if (action.settings_file[0] != '/')
                return fields.wrong("settings", "must be an absolute path of the vault's machine");
            FS_ASSIGN(action.wait_for_callback, fields.boolean("callback", true));
            break;
        }
        case StepKind::kManual: {
            FS_TRY(members({"instructions"}));
            FS_ASSIGN(action.instructions, fields.required_text("instructions", kMaxTextBytes));
            break;
        }
    }
    return action;
}

Json plan_json(const RecoveryPlan& plan) {
    Json groups = Json::array();
    for (const PlanGroup& group : plan.groups) {
        Json items = Json::array();
        for (const PlanItem& item : group.items) {
            Json one = limits_json(item.limits);
            one["name"] = item.name;
            one["source"] = std::string(plan_source_name(item.source));
            items.push_back(std::move(one));
        }
        groups.push_back({{"name", group.name},
                          {"before", actions_json(group.before)},
                          {"items", std::move(items)},
                          {"after", actions_json(group.after)}});
    }
    Json json{{"name", plan.name},
              {"description", plan.description},
              {"shutdown", actions_json(plan.shutdown)},
              {"groups", std::move(groups)}};
    if (plan.network) json["network"] = network_word(*plan.network);
    if (plan.test_network) json["test_network"] = network_word(*plan.test_network);
    return json;
}

Result<RecoveryPlan> plan_from_json(const Json& json) {
    FS_ASSIGN(const JsonFields fields, JsonFields::of(json, "plan"));
    FS_TRY(check_members(json, "plan",
                         {"name", "description", "network", "test_network", "shutdown", "groups"}));
    RecoveryPlan plan;
    FS_ASSIGN(plan.name, fields.required_text("name", kMaxPlanNameBytes));
    FS_TRY(check_plan_name(plan.name));
    FS_ASSIGN(plan.description, fields.text("description", kMaxTextBytes));
    FS_ASSIGN(plan.network, network_field(fields, "network"));
    FS_ASSIGN(plan.test_network, network_field(fields, "test_network"));
    FS_ASSIGN(plan.shutdown, actions_of(fields, "shutdown"));
    FS_ASSIGN(const Json* groups, fields.array("groups", kMaxPlanGroups));
    for (size_t i = 0; groups != nullptr && i < groups->size(); ++i) {
        const std::string path = fmt::format("plan.groups[{}]", i);
        FS_ASSIGN(const JsonFields of_group, JsonFields::of((*groups)[i], path));
        FS_TRY(check_members((*groups)[i], path, {"name", "before", "items", "after"}));
        PlanGroup group;
        FS_ASSIGN(group.name, shown_name(of_group));
        FS_ASSIGN(group.before, actions_of(of_group, "before"));
        FS_ASSIGN(group.after, actions_of(of_group, "after"));
        FS_ASSIGN(const Json* items, of_group.array("items", kMaxPlanItems));
        for (size_t n = 0; items != nullptr && n < items->size(); ++n) {
            const std::string item_path = fmt::format("{}.items[{}]", path, n);
            FS_ASSIGN(const JsonFields of_item, JsonFields::of((*items)[n], item_path));
            FS_TRY(check_members(
                (*items)[n], item_path,
                {"name", "source", "limit_s", "retries", "retry_pause_s", "on_failure"}));
            PlanItem item;
            FS_ASSIGN(item.name, shown_name(of_item));
            FS_ASSIGN(const std::string source, of_item.text("source", 32, "leave"));
            auto known = plan_source_from_name(source);
            if (!known) return fail(known.error().with_context(item_path + ".source"));
            item.source = *known;
            FS_ASSIGN(item.limits, limits_of(of_item));
            group.items.push_back(std::move(item));
        }
        plan.groups.push_back(std::move(group));
    }
    FS_TRY(check_plan(plan));
    return plan;
}

}  // namespace farshore
