#include "cli/recovery_plan_commands.h"

namespace farshore {

void add_recovery_plan_commands(CLI::App& app, RecoveryPlanArguments& arguments,
                                const AddRecoveryVerb& verb) {
    RecoveryPlanArguments& a = arguments;
    CLI::App* plan = app.add_subcommand("recovery-plan",
                                        "Which machines come up in which order, and what is done "
                                        "around them");
    plan->require_subcommand(1);
    verb(*plan, "list", "All recovery plans", [](RecoveryVerbs& v) { return v.recovery_plans(); });
    const auto of_plan = [&](const char* name, const char* help, const RecoveryVerb& run) {
        CLI::App* of = verb(*plan, name, help, run);
        of->add_option("NAME", a.name, "the plan")->required();
        return of;
    };
    of_plan("show", "Its groups, machines and actions",
            [&a](RecoveryVerbs& v) { return v.recovery_plan(a.name); });
    CLI::App* import = verb(*plan, "import", "Make a plan of a YAML file, or change it",
                            [&a](RecoveryVerbs& v) { return v.import_recovery_plan(a); });
    import->add_option("FILE", a.file, "as `export` writes it")->required();
    import->add_flag("--replace", a.replace, "change the plan of that name");
    CLI::App* write = of_plan("export", "Write it as YAML",
                              [&a](RecoveryVerbs& v) { return v.export_recovery_plan(a); });
    write->add_option("--to", a.file, "file to make (standard output)");
    write->add_flag("--force", a.force, "replace the file");
    of_plan("remove", "Remove it; the reports of its runs stay",
            [&a](RecoveryVerbs& v) { return v.remove_recovery_plan(a.name); });
    const auto add_run = [&](CLI::App* of) {
        of->add_option("--mode", a.mode, "test, failover or failback")
            ->required()
            ->check(CLI::IsMember({"test", "failover", "failback"}));
        of->add_option("--point", a.point,
                       "of every machine: latest, latest-processed, a time or a label")
            ->capture_default_str();
    };
    add_run(of_plan("check", "What a run would fail at now; changes nothing",
                    [&a](RecoveryVerbs& v) { return v.check_recovery_plan(a); }));
    CLI::App* start =
        of_plan("start", "Run it", [&a](RecoveryVerbs& v) { return v.start_recovery_plan(a); });
    add_run(start);
    start->add_option("--note", a.note, "why, for its report");
    start->add_flag("--unchecked", a.unchecked, "though the check finds what would fail");
    start->add_flag("--no-wait", a.no_wait, "do not wait for its end");
    CLI::App* runs = verb(*plan, "runs", "Runs, newest first",
                          [&a](RecoveryVerbs& v) { return v.plan_runs(a); });
    runs->add_option("--plan", a.name, "of that plan only");
    runs->add_option("--limit", a.limit, "how many")->capture_default_str();

    CLI::App* one = plan->add_subcommand("run", "One run");
    one->require_subcommand(1);
    const auto of_run = [&](const char* name, const char* help, const RecoveryVerb& run) {
        CLI::App* of = verb(*one, name, help, run);
        of->add_option("ID", a.run, "number of the run")->required();
        return of;
    };
    of_run("show", "Its steps, and how far it is",
           [&a](RecoveryVerbs& v) { return v.plan_run(a.run); });
    CLI::App* report = of_run("report", "Its report as an HTML page (--json: as JSON)",
                              [&a](RecoveryVerbs& v) { return v.report_plan_run(a); });
    report->add_option("--to", a.file, "file to make (standard output)");
    report->add_flag("--force", a.force, "replace the file");
    of_run("stop", "Begin no further step; what runs comes to its end",
           [&a](RecoveryVerbs& v) { return v.change_plan_run(a, "stop"); });
    CLI::App* resume = of_run("resume", "Go on from where it stopped",
                              [&a](RecoveryVerbs& v) { return v.change_plan_run(a, "resume"); });
    resume->add_option("--skip", a.skip, "leave this step out (several: once for each)");
    resume->add_flag("--no-wait", a.no_wait, "do not wait for its end");
    of_run("cancel", "End one that is stopped, for good; what it did stays",
           [&a](RecoveryVerbs& v) { return v.change_plan_run(a, "cancel"); });
    CLI::App* cleanup = of_run("cleanup", "End the machines of a test",
                               [&a](RecoveryVerbs& v) { return v.clean_up_plan_run(a); });
    cleanup->add_flag("--no-wait", a.no_wait, "do not wait for the job");
    CLI::App* answer = of_run("answer", "Answer a step that waits for a person",
                              [&a](RecoveryVerbs& v) { return v.answer_plan_step(a); });
    answer->add_option("STEP", a.step, "its id, as `run show` says")->required();
    CLI::Option* done = answer->add_flag("--done", a.done, "it is done");
    answer->add_flag("--failed", a.failed, "it has failed")->excludes(done);
    answer->add_option("--note", a.note, "what was seen, for the report");
    answer->parse_complete_callback([&a] {
        if (!a.done && !a.failed) throw CLI::RequiredError("--done or --failed");
    });
}

}  // namespace farshore
