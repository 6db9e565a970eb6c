#include "cli/drill_commands.h"

namespace farshore {

void add_drill_commands(CLI::App& app, DrillArguments& arguments, const AddRecoveryVerb& verb,
                        const CLI::Validator& duration) {
    DrillArguments& a = arguments;
    CLI::App* drill = app.add_subcommand("drill", "Points that are booted in isolation and judged");
    drill->require_subcommand(1);
    const auto of_item = [&](const char* name, const char* help, const RecoveryVerb& run) {
        CLI::App* of = verb(*drill, name, help, run);
        of->add_option("ITEM", a.item, "name or id of the item")->required();
        return of;
    };
    CLI::App* set =
        of_item("set", "When an item's points are tried, and by what a good machine is known",
                [&a](RecoveryVerbs& v) { return v.set_drill_policy(a); });
    set->add_option("--every", a.every_s, "between drills, as 1d")->transform(duration);
    set->add_flag("--after-consistent", a.after_consistent, "of each application-consistent point");
    set->add_option("--overdue", a.overdue_s,
                    "raise an alarm when the last good one is older (twice --every)")
        ->transform(duration);
    set->add_option("--limit", a.limit_s, "from the machine's start until all is seen (10min)")
        ->transform(duration);
    set->add_flag("--agent", a.agent, "the guest agent answers");
    set->add_option("--port", a.port, "this TCP port takes connections")
        ->check(CLI::Range(1, 65535));
    set->add_option("--serial", a.serial, "this text is said at the serial line");
    set->add_option("--serial-pattern", a.serial_pattern,
                    "a line at the serial line matches this regular expression (RE2)");
    set->add_option("--window", a.windows,
                    "when they may begin by themselves, as 'Mon-Fri 22:00-05:00' (always)");
    set->add_option("--script", a.scripts,
                    "then this script of the vault's scripts directory, with its arguments, exits "
                    "with 0 (several: once for each)");
    set->add_option("--guest-script", a.guest_scripts,
                    "then this program inside of the machine, with its arguments, does");
    of_item("policy", "What was set", [&a](RecoveryVerbs& v) { return v.drill_policy(a.item); });
    of_item("remove", "No more drills; what they have shown stays",
            [&a](RecoveryVerbs& v) { return v.remove_drill_policy(a.item); });
    CLI::App* run = of_item("run", "One now", [&a](RecoveryVerbs& v) { return v.start_drill(a); });
    run->add_option("--point", a.point, "latest, latest-processed, a time, a label or a sequence")
        ->capture_default_str();
    run->add_flag("--no-wait", a.no_wait, "do not wait for its end");
    CLI::App* list = verb(*drill, "list", "Drills, newest first",
                          [&a](RecoveryVerbs& v) { return v.drills(a); });
    list->add_option("--item", a.item, "of one item only");
    list->add_option("--limit", a.limit, "how many")->capture_default_str();
    CLI::App* show =
        verb(*drill, "show", "One drill", [&a](RecoveryVerbs& v) { return v.drill(a); });
    show->add_option("ID", a.drill, "number of the drill")->required();
    show->add_option("--screenshot", a.screenshot_file, "write what its screen showed here (PNG)");
    show->add_option("--serial", a.serial_file, "write what it said at its serial line here");
    show->add_flag("--force", a.force, "replace the files");
    CLI::App* budget = verb(*drill, "budget", "What all drills together may take",
                            [&a](RecoveryVerbs& v) { return v.drill_budget(a); });
    budget->add_option("--cpus", a.cpus, "processors");
    budget->add_option("--memory", a.memory_bytes, "bytes, as 4GiB")
        ->transform(CLI::AsSizeValue(false));
}

}  // namespace farshore
