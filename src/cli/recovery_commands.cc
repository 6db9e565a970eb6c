#include "cli/recovery_commands.h"

#include <string_view>

namespace farshore {
namespace {

void add_shut_down(CLI::App& action, bool& power_off, uint64_t& timeout_s) {
    action.add_flag("--power-off", power_off,
                    "end a machine that does not shut down in time, as a power cut would");
    action.add_option("--shut-down-timeout", timeout_s, "seconds that it has to shut down (120)")
        ->check(CLI::Range(uint64_t{1}, uint64_t{3600}));
}

void add_item(CLI::App& action, RecoveryArguments& a) {
    action.add_option("NAME", a.name, "name or id of the item")->required();
}

void add_no_wait(CLI::App& action, RecoveryArguments& a) {
    action.add_flag("--no-wait", a.no_wait, "do not wait for the job");
}

void add_start_options(CLI::App& start, RecoveryArguments& a, const CLI::Validator& duration) {
    start.add_flag("--shut-down", a.failover.shut_down,
                   "shut the source's machine down first, if it can be reached, and take what it "
                   "wrote last");
    start.add_option("--network", a.network, kNetworkHelp);
    start.add_option("--compute", a.compute, kComputeHelp);
    start.add_flag("--planned", a.failover.planned, "the same, and only if nothing at all is lost");
    add_shut_down(start, a.failover.power_off, a.failover.timeout_s);
    CLI::Option* commit = start
                              .add_option("--commit-after", a.failover.commit_after_s,
                                          "commit it when nobody has decided for so long (\"4h\")")
                              ->transform(duration);
    start
        .add_option("--roll-back-after", a.failover.roll_back_after_s,
                    "give it up then: what was written here is lost, the source counts again")
        ->transform(duration)
        ->excludes(commit);
}

// Of test, start and change-point.
void add_point(CLI::App& action, RecoveryArguments& a, bool of_a_running_one) {
    CLI::Option* point = action.add_option("--point", a.point, kPointHelp);
    if (of_a_running_one)
        point->required();
    else
        action.add_option("--copy", a.copy, kCopyHelp);
}

void add_tests(CLI::App& failover, RecoveryArguments& a, const AddRecoveryVerb& verb) {
    const auto of = [&a] {
        return TestArguments{a.name, a.point,   a.copy,    a.note,
                             a.id,   a.network, a.compute, !a.no_wait};
    };
    CLI::App* test =
        verb(failover, "test", "Start it beside the running one, isolated from every network",
             [of](RecoveryVerbs& v) { return v.start_test(of()); });
    add_item(*test, a);
    test->add_option("--note", a.note, "what it is for; shown with it");
    add_point(*test, a, false);
    test->add_option("--network", a.network, kNetworkHelp);
    test->add_option("--compute", a.compute, kComputeHelp);
    add_no_wait(*test, a);
    CLI::App* ends = verb(failover, "cleanup", "End a test failover and forget what it wrote",
                          [of](RecoveryVerbs& v) { return v.clean_up_tests(of()); });
    add_item(*ends, a);
    CLI::Option* one =
        ends->add_option("--id", a.id, "of this test only, as `failover list` calls it");
    ends->add_flag("--all", a.all, "of all tests of the item, which is the default")->excludes(one);
    add_no_wait(*ends, a);
}

void add_failover(CLI::App& app, RecoveryArguments& a, const AddClientVerb& verb,
                  const AddRecoveryVerb& recovery_verb, const CLI::Validator& duration) {
    CLI::App* failover = app.add_subcommand("failover", "Start a machine from a recovery point");
    failover->require_subcommand(1);
    add_tests(*failover, a, recovery_verb);
    struct Row {
        const char* name;
        const char* help;
    };
    for (const Row& row :
         {Row{"start", "Start it for real: the site is lost"},
          Row{"change-point", "Start it again from another point"},
          Row{"move", "Let it go on at another compute host, on its disks as they are"},
          Row{"commit", "Keep the point for good"},
          Row{"cancel", "Give the started machine up; the source counts again"},
          Row{"keep-open",
              "It decides about itself no more (--commit-after, --roll-back-after)"}}) {
        const std::string_view name = row.name;
        CLI::App* action = verb(*failover, row.name, row.help, [&a, row](ClientVerbs& v) {
            a.failover.action = row.name;
            a.failover.name = a.name;
            a.failover.point = a.point;
            a.failover.copy = a.copy;
            a.failover.network = a.network;
            a.failover.compute = a.compute;
            a.failover.wait = !a.no_wait;
            return v.failover(a.failover);
        });
        add_item(*action, a);
        if (name == "start" || name == "change-point")
            add_point(*action, a, name == "change-point");
        if (name == "start") add_start_options(*action, a, duration);
        if (name == "move") {
            action
                ->add_option("--compute", a.compute,
                             "the host that it goes to; local: the vault's own machine")
                ->required();
            action->add_option("--network", a.network, "for all of its cards (as they are)");
            add_shut_down(*action, a.failover.power_off, a.failover.timeout_s);
        }
        add_no_wait(*action, a);
    }
    CLI::App* hydrate = recovery_verb(
        *failover, "hydrate",
        "Copy what it reads from the replica into disks of its own, behind the running machine",
        [&a](RecoveryVerbs& v) {
            return v.hydrate(a.name, a.throttle_bytes_per_s, a.into, a.format, !a.no_wait);
        });
    add_item(*hydrate, a);
    CLI::Option* into = hydrate->add_option(
        "--into", a.into, "a directory of the machine's host, in which they become files");
    hydrate->add_option("--format", a.format, "raw or qcow2 (qcow2)")->needs(into);
    hydrate->add_option("--throttle", a.throttle_bytes_per_s,
                        "bytes a second that are copied (no limit)");
    add_no_wait(*hydrate, a);
    add_item(*verb(*failover, "list", "Failovers of an item",
                   [&a](ClientVerbs& v) { return v.failovers(a.name); }),
             a);
}

int run_way_home(ClientVerbs& verbs, RecoveryArguments& a, const char* action) {
    a.way_home.action = action;
    a.way_home.name = a.name;
    a.way_home.wait = !a.no_wait;
    return verbs.way_home(a.way_home);
}

void add_way_home(CLI::App& app, RecoveryArguments& a, const AddClientVerb& verb) {
    CLI::App* reprotect =
        verb(app, "reprotect",
             "Capture a machine that runs at the recovery site, and write its home's disks",
             [&a](ClientVerbs& v) {
                 return run_way_home(v, a, a.cancel ? "cancel-reprotect" : "reprotect");
             });
    add_item(*reprotect, a);
    reprotect->add_option("--to-agent", a.way_home.agent,
                          "another agent than the one that it had; with --disk");
    reprotect->add_option("--disk", a.way_home.disks,
                          "a path there, for each disk of the item in its order; a file that is "
                          "missing is made");
    reprotect->add_option("--appliance", a.way_home.appliance,
                          "the appliance that its data go through");
    reprotect->add_flag("--accept", a.way_home.accept,
                        "also when most of what is on the disks is something else");
    reprotect->add_flag("--cancel", a.cancel, "give it up: the machine stays where it is");
    add_no_wait(*reprotect, a);
    CLI::App* failback = app.add_subcommand("failback", "Bring a machine home");
    failback->require_subcommand(1);
    struct Row {
        const char* name;
        const char* action;
        const char* help;
    };
    for (const Row& row :
         {Row{"start", "failback", "Shut it down at the recovery site and give its home the rest"},
          Row{"commit", "commit", "It runs at home: what is left at the recovery site goes"},
          Row{"cancel", "cancel-failback",
              "Start it at the recovery site again, as it was shut down there"}}) {
        CLI::App* action = verb(*failback, row.name, row.help, [&a, row](ClientVerbs& v) {
            return run_way_home(v, a, row.action);
        });
        add_item(*action, a);
        if (std::string_view(row.name) == "start")
            add_shut_down(*action, a.way_home.power_off, a.way_home.timeout_s);
        add_no_wait(*action, a);
    }
}

}  // namespace

void add_item_network(CLI::App& item, RecoveryArguments& a, const AddRecoveryVerb& verb) {
    CLI::App* network =
        verb(item, "network", "Its network cards: what becomes of each in a recovery",
             [&a](RecoveryVerbs& v) { return v.item_network(a.name, a.nic); });
    add_item(*network, a);
    network->add_option("--nic", a.nic.nic, "place of the card, from 0")
        ->check(CLI::Range(uint64_t{0}, uint64_t{31}))
        ->capture_default_str();
    const char* const words =
        "isolated, user, none, segment:NAME, bridge:INTERFACE or network:NAME";
    std::vector<CLI::Option*> set{
        network->add_option("--failover", a.nic.failover,
                            std::string("what it is plugged into in a failover: ") + words),
        network->add_option("--test", a.nic.test, std::string("in a test: ") + words),
        network->add_option("--mac", a.nic.mac,
                            "keep (as at the source), new (another one each time), or an address"),
        network->add_option("--address", a.nic.address,
                            "that the guest is given: ADDRESS/PREFIX; none: not any more"),
        network
            ->add_option(
                "--address-by", a.nic.address_by,
                "who gives it: agent (set inside of a Linux guest, on a segment, a bridge or "
                "a libvirt network), dhcp (on isolated, user or a libvirt network), "
                "cloud-init (inside, on any)")
            ->check(CLI::IsMember({"agent", "dhcp", "cloud-init"})),
        network->add_option("--gateway", a.nic.gateway, "with --address; none: not any more"),
        network->add_option("--dns", a.nic.name_servers,
                            "with --address: a name server (several: once for each)")};
    CLI::Option* clear =
        network->add_flag("--clear", a.nic.clear, "nothing is set for it any more");
    for (CLI::Option* option : set) clear->excludes(option);
}

void add_recovery_commands(CLI::App& app, RecoveryArguments& arguments, const AddClientVerb& verb,
                           const AddRecoveryVerb& recovery_verb, const CLI::Validator& duration) {
    add_failover(app, arguments, verb, recovery_verb, duration);
    add_way_home(app, arguments, verb);
}

}  // namespace farshore
