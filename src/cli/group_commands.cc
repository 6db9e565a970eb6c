#include "cli/group_commands.h"

namespace farshore {

void add_group_commands(CLI::App& app, GroupArguments& arguments, const AddClientVerb& verb,
                        const CLI::Validator& duration) {
    GroupArguments& a = arguments;
    CLI::App* group =
        app.add_subcommand("group", "Replication groups: machines with common points");
    group->require_subcommand(1);
    verb(*group, "list", "All groups", [](ClientVerbs& v) { return v.groups(); });
    const auto of_group = [&](const char* name, const char* help, const ClientVerb& run) {
        CLI::App* of = verb(*group, name, help, run);
        of->add_option("NAME", a.name, "the group")->required();
        return of;
    };
    const auto add_intervals = [&](CLI::App* of) {
        of->add_option("--crash-interval", a.crash_interval_s,
                       "time between crash-consistent shared points (300); 0: none")
            ->transform(duration);
        of->add_option("--application-interval", a.application_interval_s,
                       "time between application-consistent ones (0: none)")
            ->transform(duration);
    };
    of_group("show", "Its members and intervals", [&a](ClientVerbs& v) { return v.group(a.name); });
    CLI::App* create = of_group("create", "A group of these items",
                                [&a](ClientVerbs& v) { return v.create_group(a); });
    create->add_option("ITEM", a.items, "names or ids of items");
    add_intervals(create);
    add_intervals(of_group("set", "Change its intervals",
                           [&a](ClientVerbs& v) { return v.change_group(a); }));
    CLI::App* join = of_group("join", "Add items, from the next shared point on",
                              [&a](ClientVerbs& v) { return v.join_group(a); });
    join->add_option("ITEM", a.items, "names or ids of items")->required();
    CLI::App* leave =
        of_group("leave", "Take items out", [&a](ClientVerbs& v) { return v.leave_group(a); });
    leave->add_option("ITEM", a.items, "names or ids of items")->required();
    of_group("remove", "Remove the group; its points stay as points of its items",
             [&a](ClientVerbs& v) { return v.remove_group(a.name); });
    CLI::App* point = of_group("point", "Make a point of all its machines at one moment",
                               [&a](ClientVerbs& v) { return v.group_point(a); });
    point->add_flag("--consistent", a.consistent,
                    "with file systems frozen and scripts run (application-consistent)");
    point->add_option("--label", a.label, "a name for it");
    point->add_option("--timeout", a.timeout_s, "how long to wait until it is stored (120)")
        ->transform(duration);
    CLI::App* points = of_group("points", "Its shared points, the newest first",
                                [&a](ClientVerbs& v) { return v.group_points(a); });
    points->add_option("--limit", a.limit, "how many (100)");
}

}  // namespace farshore
