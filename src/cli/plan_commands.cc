#include "cli/plan_commands.h"

namespace farshore {

void add_plan_commands(CLI::App& app, PlanCommandArguments& arguments, const AddClientVerb& add,
                       const CLI::Validator& duration, const CLI::Validator& bandwidth) {
    PlanArguments& a = arguments.plan;
    CLI::App* plan =
        add(app, "plan", "What machines will need: line, spool, store, requests and cost",
            [&a](ClientVerbs& v) { return v.plan(a); });
    plan->require_subcommand(0, 1);
    plan->add_option("ITEM", a.items, "names or ids of items (all of them together)");
    plan->add_option("--rpo", a.rpo_s, "the RPO to hold (the least of the policies' thresholds)")
        ->transform(duration);
    plan->add_option("--growth", a.growth_percent, "of writes and data, percent a year (0)")
        ->check(CLI::Range(0, 100'000));
    plan->add_option("--months", a.months, "from now (12)")->check(CLI::Range(0, 240));
    plan->add_option("--outage", a.outage_s, "that the spool is to take (4h)")->transform(duration);
    plan->add_option("--bandwidth", a.bandwidth, "a line to judge, e.g. 50MB/s")->check(bandwidth);
    plan->add_option("--window", a.window_s, "time in which every write is a point (the policies')")
        ->transform(duration);
    plan->add_option("--keep", a.keep, "which points stay behind it (the policies')");
    CLI::Option* measured = plan->add_option("--measured", a.measured_file,
                                             "plan for a machine that `plan measure` has seen");
    plan->add_option("--stored", a.stored_per_written,
                     "with --measured: bytes stored for each byte written (1)")
        ->needs(measured)
        ->check(CLI::Range(0.001, 2.0));
    plan->add_option("--prices", a.prices_file, "TOML file with what the provider charges");
    plan->add_flag("--explain", a.explain, "the sums, with their numbers");

    MeasureArguments& m = arguments.measure;
    CLI::App* measure =
        add(*plan, "measure", "How much a machine that is not protected yet writes, as JSON",
            [&m](ClientVerbs& v) { return v.measure(m); });
    measure->add_option("--disk", m.disks, "a disk of this machine, /dev/NAME; once for each")
        ->required();
    measure->add_option("--for", m.for_s, "how long; Ctrl-C ends it before (10m)")
        ->transform(duration);
    measure->add_option("--interval", m.interval_s, "of one slot (1s)")->transform(duration);
    measure->add_option("--output", m.output, "the file (standard output)");
}

}  // namespace farshore
