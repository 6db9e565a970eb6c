#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <ostream>
#include <set>

#include "agent/rest_limits.h"
#include "base/version.h"
#include "cli/access_commands.h"
#include "cli/agent_check.h"
#include "cli/appliance_check.h"
#include "cli/catalog_verb.h"
#include "cli/client_verbs.h"
#include "cli/compute_commands.h"
#include "cli/config_arguments.h"
#include "cli/drill_commands.h"
#include "cli/environment.h"
#include "cli/extract_verb.h"
#include "cli/group_commands.h"
#include "cli/option_checks.h"
#include "cli/plan_commands.h"
#include "cli/policy_commands.h"
#include "cli/recovery_commands.h"
#include "cli/recovery_plan_commands.h"
#include "cli/serve.h"
#include "cli/serve_check.h"
#include "cli/serve_common.h"
#include "cli/server_location.h"
#include "cli/site_commands.h"
#include "cli/store_check_verb.h"
#include "ebpf/freezer.h"

namespace farshore {
namespace {

// All that the command line can set. CLI11 binds to it, so it outlives the parser.
struct Arguments {
    LocationOptions location;
    bool json = false;
    std::string name;
    std::string point;
    std::string kind;
    std::string label;
    std::string action;
    bool force = false;
    bool consistent = false;
    bool no_wait = false;
    bool states = false;
    bool scrub_now = false;
    bool suspicious = false;
    bool wait = false;
    bool cancel = false;
    bool retry = false;
    bool all_alarms = false;
    std::vector<std::string> items;
    std::string to, site;
    bool lost = false;
    HealthLimitArguments limits;
    std::string alarm_note;
    std::string migrate_data, migrate_to;
    bool in_window = false;
    PolicyArguments policy;
    uint64_t id = 0;
    uint64_t timeout_s = 120;
    std::string disk_path;
    uint64_t disk_index = 0;
    ProtectArguments protect;
    ExportArguments export_point;
    MaterialiseArguments materialise;
    FilesArguments files;
    ListArguments list;
    ExtractArguments extract;
    KeyArguments key;
    CatalogArguments catalog;
    StoreCheckArguments store_check;
    SupportBundleArguments support_bundle;
    PlanCommandArguments plan;
    StoreArguments store;
    NotifierArguments notifier;
    RecoveryPlanArguments recovery_plan;
    DrillArguments drill;
    RecoveryArguments recovery;
    ComputeHostArguments compute;
    SiteArguments described_site;
    AccessCommandArguments access;
    NamedPolicyArguments named_policy;
    GroupArguments group;
    bool follow = false;
    std::string copy;
    bool delete_points = false;
    std::string token_kind = "agent";
    std::string token_name;
    uint64_t token_valid_s = 3600;
    UpOptions up;
    VaultServeOptions vault;
    ApplianceServeOptions appliance;
    AgentServeOptions agent;
    CaptureServeOptions capture;
    FreezeOptions freeze;
    std::string freeze_guest;
    CaptureCheckOptions check;
    CaptureBounds check_bounds;
    std::string config_file;
    bool check_only = false;
};

void add_common(CLI::App& app, Arguments& arguments) {
    app.add_option("--server", arguments.location.server,
                   "the vault, https://host:port (FARSHORE_SERVER)");
    app.add_option("--data", arguments.location.data,
                   "data directory of a server on this machine (FARSHORE_DATA)");
    app.add_option("--ca", arguments.location.ca_file,
                   "certificate of its authority (FARSHORE_CA)");
    app.add_option("--token-file", arguments.location.token_file,
                   "file with the access token (FARSHORE_TOKEN_FILE)");
    app.add_flag("--json", arguments.json, "one JSON document on one line, for programs");
}

class Parser {
  public:
    Parser(CliEnvironment& environment)
        : environment_(environment),
          app_(
              "Farshore: disaster recovery for machines. Protects them write by write, and starts "
              "them elsewhere from any recovery point.",
              "farshore") {}

    int run(int argc, const char* const* argv) {
        define();
        std::vector<std::string> words(argv, argv + argc);
        if (const Status configured = add_configuration(words); !configured) {
            *environment_.err << "farshore: " << configured.error().to_string() << "\n";
            return code_exit_status(configured.error().code());
        }
        try {
            std::vector<const char*> whole;
            for (const std::string& word : words) whole.push_back(word.c_str());
            app_.parse(static_cast<int>(whole.size()), whole.data());
        } catch (const CLI::ParseError& error) {
            const int code = app_.exit(error, *environment_.out, *environment_.err);
            return code == 0 ? 0 : kExitUsage;
        }
        return action_ ? action_() : kExitUsage;
    }

  private:
    using Verb = std::function<int(ClientVerbs&)>;

    void define() {
        app_.set_version_flag("--version", std::string("farshore ") + kFarshoreVersion);
        app_.require_subcommand(1);
        app_.fallthrough(false);
        add_items();
        add_points();
        add_files();
        add_keys();
        add_others();
        add_servers();
        app_.footer(
            "Exit codes: 0 success, 64 usage, 66 not found, 69 unavailable, 74 input/output, "
            "75 try later, 77 not allowed; all in docs/operations/cli.md.");
    }

    // The server verb that `words` begin with, and how many words name it; null: another verb.
    CLI::App* configured_verb(const std::vector<std::string>& words, size_t& named) {
        CLI::App* app = &app_;
        for (named = 1; named < words.size() && !configured_.contains(app); ++named) {
            const auto found = app->get_subcommands(
                [&](const CLI::App* one) { return one->get_name() == words[named]; });
            if (found.empty()) return nullptr;
            app = found.front();
        }
        return configured_.contains(app) ? app : nullptr;
    }

    // Puts what the file of --config sets behind the words that are there.
    Status add_configuration(std::vector<std::string>& words) {
        size_t named = 0;
        // Its options are tried with the file's values, and keep what they were tried with.
        Parser scratch(environment_);
        scratch.define();
        CLI::App* app = scratch.configured_verb(words, named);
        if (app == nullptr) return {};
        const std::vector<std::string> given(words.begin() + static_cast<ptrdiff_t>(named),
                                             words.end());
        std::string file;
        for (size_t i = 0; i < given.size(); ++i) {
            if (given[i] == "--config" && i + 1 < given.size()) file = given[i + 1];
            if (given[i].starts_with("--config=")) file = given[i].substr(9);
        }
        if (file.empty()) return {};
        FS_ASSIGN(const std::string text, environment_.read_file(file));
        FS_ASSIGN(const std::vector<std::string> more, config_arguments(*app, text, file, given));
        words.insert(words.end(), more.begin(), more.end());
        return {};
    }

    template <typename Verbs>
    CLI::App* verb_of(CLI::App& parent, const std::string& name, const std::string& help,
                      const std::function<int(Verbs&)>& run) {
        CLI::App* app = parent.add_subcommand(name, help);
        if (run) {
            add_common(*app, arguments_);
            app->callback([this, run, app] {
                // A verb's own verbs speak for themselves; CLI11 asks the one above last.
                if (!app->get_subcommands().empty()) return;
                action_ = [this, run] {
                    Verbs verbs(environment_, arguments_.location, arguments_.json);
                    return run(verbs);
                };
            });
        }
        return app;
    }
    CLI::App* verb(CLI::App& parent, const std::string& name, const std::string& help,
                   const Verb& run) {
        return verb_of<ClientVerbs>(parent, name, help, run);
    }
    AddRecoveryVerb recovery_verb() {
        return [this](CLI::App& parent, const std::string& name, const std::string& help,
                      const RecoveryVerb& run) {
            return verb_of<RecoveryVerbs>(parent, name, help, run);
        };
    }
    AddComputeVerb compute_verb() {
        return [this](CLI::App& parent, const std::string& name, const std::string& help,
                      const ComputeVerb& run) {
            return verb_of<ComputeVerbs>(parent, name, help, run);
        };
    }
    CLI::App* named(CLI::App& parent, const std::string& name, const std::string& help,
                    const Verb& run) {
        CLI::App* app = verb(parent, name, help, run);
        app->add_option("NAME", arguments_.name, "name or id of the item")->required();
        return app;
    }

    // DURATION: seconds, or a number with a unit.
    static CLI::Validator duration() {
        return CLI::AsNumberWithUnit(
            std::map<std::string, uint64_t>{
                {"s", 1}, {"m", 60}, {"min", 60}, {"h", 3600}, {"d", 86'400}},
            CLI::AsNumberWithUnit::DEFAULT, "DURATION");
    }

    void add_policy(CLI::App* app, PolicyArguments& policy) {
        app->add_option("--point-interval", policy.crash_point_interval_s,
                        "time between crash-consistent points (300)")
            ->transform(duration());
        app->add_option("--window", policy.window_s, "time in which every write is a point (7200)")
            ->transform(duration());
        app->add_option("--keep", policy.keep,
                        "which points stay behind it, as EVERY:AGE steps ('1h:1d, 2h:7d, 4h:15d'); "
                        "'': none");
        app->add_option("--grace", policy.grace_s,
                        "time between an object's last use and its removal (600)")
            ->transform(duration());
        app->add_option("--throttle", policy.copy_throttle_bytes_per_s,
                        "bytes a second that are read for copying and comparing; 0: no limit");
        app->add_option("--consistent-interval", policy.consistent_interval_s,
                        "time between points of the machine at rest, e.g. 1h; at least 5min (0: "
                        "none)")
            ->transform(duration());
        app->add_option("--rpo-threshold", policy.rpo_threshold_s,
                        "health warns when the newest point is older (60)")
            ->transform(duration());
        app->add_option(
            "--resync-windows", policy.resync_windows,
            "when comparisons that can wait may run, e.g. 'Mon-Fri 20:00-06:00, Sat-Sun "
            "00:00-24:00 Europe/Berlin'; '': outside office hours");
        app->add_option("--resync-windows-for", policy.resync_windows_for,
                        "what waits for them: what-can-wait, or all: also what the item needs to "
                        "be protected again")
            ->check(CLI::IsMember({"what-can-wait", "all"}));
        app->add_option("--verify-interval", policy.verify_interval_s,
                        "time between comparisons that only check, e.g. 7d; at least 1h (0: none)")
            ->transform(duration());
        app->add_option("--bandwidth", policy.bandwidth,
                        "what may be sent to the store in a second, e.g. '20MB/s Mon-Fri "
                        "08:00-18:00 Europe/Berlin; 200MB/s'; '': no limit");
        app->add_option("--catch-up", policy.catch_up,
                        "after an outage: in-order, every write of it and its points; or "
                        "newest-first, what the disks hold by then, without points in between")
            ->check(CLI::IsMember({"in-order", "newest-first"}));
        app->add_option("--scrub-interval", policy.scrub_interval_s,
                        "time between readings of every stored object, e.g. 7d; at least 1h (30d; "
                        "0: none)")
            ->transform(duration());
    }

    // --NAME of a list, for its query.
    void add_filter(CLI::App* app, const std::string& name, const std::string& help) {
        app->add_option_function<std::string>(
            "--" + name,
            [this, name](const std::string& value) { arguments_.list.filters[name] = value; },
            "only those " + help);
    }

    void add_items() {
        Arguments& a = arguments_;
        CLI::App* items = verb(app_, "items", "All protected machines",
                               [&a](ClientVerbs& v) { return v.items(a.list); });
        add_filter(items, "state", "in that state");
        add_filter(items, "health", "normal, warning or critical");
        add_filter(items, "policy", "that follow that policy; custom: with values of their own");
        add_filter(items, "appliance", "of that appliance");
        add_filter(items, "site", "whose appliance stands there");
        add_filter(items, "agent", "that this agent captures");
        add_filter(items, "prefix", "whose names begin so");
        CLI::App* item =
            verb(app_, "item", "One protected machine: state, health, RPO, lag, points",
                 [&a](ClientVerbs& v) { return a.states ? v.states(a.name) : v.item(a.name); });
        // Not required() for CLI11, which would ask for it before `network` as well.
        item->add_option("NAME", a.name, "name or id of the item");
        item->add_flag("--states", a.states,
                       "the table of states instead: what is possible in which");
        item->parse_complete_callback([&a, item] {
            if (item->get_subcommands().empty() && a.name.empty()) throw CLI::RequiredError("NAME");
        });
        add_item_network(*item, a.recovery, recovery_verb());
        add_item_compute(*item, a.compute, compute_verb());
        CLI::App* protect =
            verb(app_, "protect", "Protect a machine; prints the NBD socket of an in-path disk",
                 [&a](ClientVerbs& v) {
                     a.protect.name = a.name;
                     return v.protect(a.protect);
                 });
        protect->add_option("NAME", a.name, "name for the item")->required();
        CLI::Option* qmp = protect->add_option("--qmp", a.protect.qmp_socket,
                                               "QMP socket of a running QEMU: nothing restarts");
        protect
            ->add_option("--disk", a.protect.disks,
                         "file or block device to serve in the path; once for each disk")
            ->excludes(qmp);
        protect
            ->add_option("--device", a.protect.devices,
                         "disk of the agent's own machine, captured while it runs; once for each")
            ->excludes(qmp)
            ->excludes("--disk");
        protect->add_option("--seed", a.protect.seeds,
                            "what the replica begins with: a raw image at the vault's machine, an "
                            "NBD URI, or item:NAME@POINT; once for each disk, - for none");
        protect->add_option("--agent", a.protect.agent, "the agent that captures it");
        add_policy(protect, a.protect.policy);
        protect->add_option("--policy", a.protect.policy_name,
                            "the policy to follow (default), instead of values of its own");
        protect->add_flag("--wait", a.protect.wait, "wait until it is protected");
        protect
            ->add_option("--capture-wait", a.protect.capture_wait_s,
                         "seconds to wait for its agent")
            ->capture_default_str()
            ->check(CLI::Range(0, 60));
        protect->parse_complete_callback([&a] {
            if (a.protect.qmp_socket.empty() && a.protect.disks.empty() &&
                a.protect.devices.empty())
                throw CLI::RequiredError("--qmp, --disk or --device");
        });
        CLI::App* unprotect =
            named(app_, "unprotect", "End the protection and delete every recovery point",
                  [&a](ClientVerbs& v) { return v.unprotect(a.name, a.force, !a.no_wait); });
        unprotect->add_flag("--force", a.force, "do not wait for the agent");
        unprotect->add_flag("--no-wait", a.no_wait, "do not wait for the job");
        CLI::App* resync =
            named(app_, "resync", "Compare source and replica, and send what differs",
                  [&a](ClientVerbs& v) {
                      return v.resynchronise(a.name,
                                             a.cancel      ? ResyncWish::kCancel
                                             : a.in_window ? ResyncWish::kInWindow
                                                           : ResyncWish::kNow,
                                             !a.no_wait);
                  });
        resync->alias("resynchronise");
        CLI::Option* in_window = resync->add_flag("--in-window", a.in_window,
                                                  "in the item's next window; does not wait");
        resync->add_flag("--cancel", a.cancel, "end one that waits, or that only checks")
            ->excludes(in_window);
        resync->add_flag("--no-wait", a.no_wait, "do not wait for its end");
        CLI::App* scrub =
            named(app_, "scrub", "Read every stored object again; which are damaged",
                  [&a](ClientVerbs& v) { return v.scrub(a.name, a.scrub_now, !a.no_wait); });
        CLI::Option* scrub_now =
            scrub->add_flag("--now", a.scrub_now, "begin at once, and wait for its end");
        scrub->add_flag("--no-wait", a.no_wait, "do not wait for its end")->needs(scrub_now);
        add_policy(named(app_, "set", "Change an item's policy; shows old and new",
                         [&a](ClientVerbs& v) { return v.set(a.name, a.policy); }),
                   a.policy);
        add_policy_commands(
            app_, a.named_policy,
            [this](CLI::App& parent, const std::string& name, const std::string& help,
                   const ClientVerb& run) { return verb(parent, name, help, run); },
            [this](CLI::App* app, PolicyArguments& values) { add_policy(app, values); });
        add_group_commands(
            app_, a.group,
            [this](CLI::App& parent, const std::string& name, const std::string& help,
                   const ClientVerb& run) { return verb(parent, name, help, run); },
            duration());
        add_disks();
    }

    void add_disks() {
        Arguments& a = arguments_;
        CLI::App* seed = app_.add_subcommand("seed", "What a replica begins with");
        seed->require_subcommand(1);
        for (const auto& [action, help] :
             {std::pair{"accept", "It is the right one though much differs: send what differs"},
              std::pair{"retry", "Read one again that could not be read"},
              std::pair{"skip", "Go on without one that could not be read"}})
            named(*seed, action, help, [&a, chosen = std::string(action)](ClientVerbs& v) {
                return v.change_seed(a.name, chosen);
            });
        CLI::App* disk = app_.add_subcommand("disk", "Disks of a protected machine");
        disk->require_subcommand(1);
        named(*disk, "list", "Its disks, and which of them the points have",
              [&a](ClientVerbs& v) { return v.disks(a.name); });
        CLI::App* add =
            named(*disk, "add", "Protect a further disk; the others go on meanwhile",
                  [&a](ClientVerbs& v) { return v.add_disk(a.name, a.disk_path, !a.no_wait); });
        add->add_option("DISK", a.disk_path,
                        "file or device as for `protect`; of a running QEMU its device id, node "
                        "name, serial number or file")
            ->required();
        add->add_flag("--no-wait", a.no_wait, "do not wait until it is copied");
        CLI::App* remove =
            named(*disk, "remove", "Leave a disk out from now on; older points keep it",
                  [&a](ClientVerbs& v) { return v.remove_disk(a.name, a.disk_index); });
        remove->alias("exclude");
        remove->add_option("INDEX", a.disk_index, "its index")
            ->required()
            ->check(CLI::Range(0, 63));
    }

    void add_holds() {
        Arguments& a = arguments_;
        CLI::App* hold = app_.add_subcommand("hold", "Points that stay whatever the policy says");
        hold->require_subcommand(1);
        CLI::App* place =
            named(*hold, "add", "Keep a point until the hold is released",
                  [&a](ClientVerbs& v) { return v.place_hold(a.name, a.point, a.label); });
        place->add_option("--point", a.point, kPointHelp)->required();
        place->add_option("--reason", a.label, "why, for those who find it later")->required();
        named(*hold, "list", "Its holds", [&a](ClientVerbs& v) { return v.holds(a.name); });
        CLI::App* release = named(*hold, "release", "Let a point go when the policy says",
                                  [&a](ClientVerbs& v) { return v.release_hold(a.name, a.label); });
        release->add_option("HOLD", a.label, "the hold, as `hold list` names it")->required();
        CLI::App* cost =
            named(app_, "cost", "What keeping points needs in the store, by an item's own changes",
                  [&a](ClientVerbs& v) { return v.cost(a.name, a.policy); });
        cost->add_option("--window", a.policy.window_s, "another time in which every write is one")
            ->transform(duration());
        cost->add_option("--keep", a.policy.keep, "other points that stay behind it");
    }

    void add_points() {
        Arguments& a = arguments_;
        add_holds();
        CLI::App* points =
            named(app_, "points", "Recovery points of an item", [&a](ClientVerbs& v) {
                a.list.item = a.name;
                return v.points(a.list, a.kind, a.suspicious);
            });
        points->add_option("--limit", a.list.limit, "how many")->capture_default_str();
        points->add_option("--kind", a.kind, "crash, application or bookmark");
        points->add_option("--copy", a.list.copy, kCopyHelp);
        points->add_flag("--suspicious", a.suspicious,
                         "where the disks changed unlike before, as when something encrypts them, "
                         "and the last point before that");
        CLI::App* point = named(
            app_, "point",
            "Make a recovery point with a label and wait until it is stored, or "
            "look one up",
            [&a](ClientVerbs& v) {
                return a.label.empty() ? v.point(a.name, a.point, a.copy)
                                       : v.bookmark(a.name, a.label, a.consistent, a.timeout_s);
            });
        CLI::Option* bookmark = point->add_option("--bookmark", a.label, "the new point's label");
        point
            ->add_flag("--consistent", a.consistent,
                       "freeze the file systems for it, so that they need no repair; an agent "
                       "inside the machine does that")
            ->needs(bookmark);
        CLI::Option* which = point->add_option("--point", a.point, kPointHelp);
        which->excludes(bookmark);
        point->add_option("--copy", a.copy, kCopyHelp)->needs(which);
        point->add_option("--timeout", a.timeout_s, "seconds to wait")->capture_default_str();
        point->parse_complete_callback([&a] {
            if (a.label.empty() && a.point.empty())
                throw CLI::RequiredError("--bookmark or --point");
        });
        CLI::App* serve =
            named(app_, "export", "Serve a disk at a point over NBD, read-only, until Ctrl-C",
                  [&a](ClientVerbs& v) {
                      a.export_point.name = a.name;
                      return v.export_point(a.export_point);
                  });
        serve->add_option("--point", a.export_point.point, kPointHelp)->capture_default_str();
        serve->add_option("--disk", a.export_point.disk, "index of the disk")
            ->capture_default_str();
        serve->add_option("--copy", a.export_point.copy, kCopyHelp);
        serve->add_option("--socket", a.export_point.socket, "unix socket to make")->required();
        CLI::App* image =
            named(app_, "materialise", "Write a disk at a point to an image on the vault's machine",
                  [&a](ClientVerbs& v) {
                      a.materialise.name = a.name;
                      a.materialise.wait = !a.no_wait;
                      return v.materialise(a.materialise);
                  });
        image->add_option("--point", a.materialise.point, kPointHelp)->capture_default_str();
        image->add_option("--disk", a.materialise.disk, "index of the disk")
            ->capture_default_str()
            ->check(CLI::Range(0, 63));
        image
            ->add_option("--to", a.materialise.to,
                         "raw:FILE, qcow2:FILE, vhd:FILE (fixed), vhd-dynamic:FILE or "
                         "azure-page-blob:https://ACCOUNT.blob.core.windows.net/CONTAINER/BLOB")
            ->required();
        image->add_option("--settings", a.materialise.settings,
                          "file with the keys of a page blob, as --store-settings");
        image->add_option("--copy", a.materialise.copy, kCopyHelp);
        image->add_flag("--force", a.materialise.force, "replace what is there");
        image->add_option("--throttle", a.materialise.throttle_bytes_per_s,
                          "bytes a second that are written, and read back (no limit)");
        image->add_flag("--no-wait", a.no_wait, "do not wait for the job");
    }

    void add_files() {
        Arguments& a = arguments_;
        CLI::App* files = app_.add_subcommand("files", "Files out of a recovery point");
        files->require_subcommand(1);
        const auto add = [&](const char* name, const char* help,
                             int (ClientVerbs::*run)(const FilesArguments&)) {
            CLI::App* app = named(*files, name, help, [&a, run](ClientVerbs& v) {
                a.files.name = a.name;
                return (v.*run)(a.files);
            });
            app->add_option("--point", a.files.point, kPointHelp)->capture_default_str();
            app->add_option("--copy", a.files.copy, kCopyHelp);
            app->add_option("--disk", a.files.disk, "only this disk (all of the point)")
                ->check(CLI::Range(0, 63));
            app->add_flag("--emulate", a.files.emulate, "do not use KVM");
            return app;
        };
        const auto add_place = [&](CLI::App* app, const char* help) {
            CLI::Option* volume = app->add_option("--volume", a.files.volume,
                                                  "file system, as `files volumes` calls it");
            app->add_option("--partition", a.files.partition, "of --disk; 0: the whole disk")
                ->needs("--disk")
                ->excludes(volume)
                ->check(CLI::Range(0, 128));
            return app->add_option("PATH", a.files.path, help);
        };
        add("volumes", "Partitions and logical volumes of the point's disks",
            &ClientVerbs::file_volumes);
        add_place(add("ls", "Entries of a directory, or one file", &ClientVerbs::list_files),
                  "absolute path in the machine")
            ->capture_default_str();
        CLI::App* get = add("get", "Copy a file or a directory here", &ClientVerbs::get_files);
        add_place(get, "absolute path in the machine")->required();
        get->add_option("--to", a.files.to, "file to make, or directory to put it into (.)");
        get->add_flag("--force", a.files.force, "replace files that are there");
        get->add_option("--max-bytes", a.files.max_bytes, "end before more than that is copied")
            ->capture_default_str();
    }

    void add_keys() {
        Arguments& a = arguments_;
        CLI::App* key = app_.add_subcommand("key", "The keys that everything is sealed under");
        key->require_subcommand(1);
        verb(*key, "show", "Which key, from where, and what is sealed under it",
             [](ClientVerbs& v) { return v.keys(); });
        CLI::App* rotate =
            verb(*key, "rotate", "Exchange the key-encryption key; no data is written again",
                 [&a](ClientVerbs& v) { return v.rotate_key(a.key.to, !a.no_wait); });
        rotate->add_option("--to", a.key.to,
                           "where the new key comes from; as --key-source of `up` (the same "
                           "source)");
        rotate->add_flag("--no-wait", a.no_wait, "do not wait for the job");
        verb(*key, "verify", "Ask the key's source again, and open every item with what it gives",
             [](ClientVerbs& v) { return v.verify_keys(); });
        CLI::App* escrow =
            verb(*key, "escrow", "All that is needed to read the store without the vault, sealed",
                 [&a](ClientVerbs& v) { return v.escrow_keys(a.key); });
        escrow->add_option("--to", a.key.to, "file to make")->required();
        CLI::Option* passphrase = escrow->add_option("--passphrase-file", a.key.passphrase_file,
                                                     "file with the passphrase");
        escrow->add_option("--public-key", a.key.public_key_file, "RSA public key in PEM")
            ->excludes(passphrase);
        escrow->add_flag("--force", a.force, "replace the file");
        escrow->parse_complete_callback([&a] {
            a.key.force = a.force;
            if (a.key.passphrase_file.empty() && a.key.public_key_file.empty())
                throw CLI::RequiredError("--passphrase-file or --public-key");
        });
        CLI::App* destroy = named(
            *key, "destroy", "Remove every copy of an item's key: nobody reads it again",
            [&a](ClientVerbs& v) {
                return v.destroy_key(a.name, a.key.confirm, a.key.end_replication, !a.no_wait);
            });
        destroy->add_option("--confirm", a.key.confirm, "the item's name once more")->required();
        destroy->add_flag("--end-replication", a.key.end_replication,
                          "though an agent replicates it");
        destroy->add_flag("--no-wait", a.no_wait, "do not wait for the job");
    }

    void add_others() {
        Arguments& a = arguments_;
        const auto add_list = [&](CLI::App* app) {
            app->add_option("--item", a.list.item, "of one item only");
            app->add_option("--limit", a.list.limit, "how many")->capture_default_str();
        };
        CLI::App* jobs = verb(app_, "jobs", "Long work: under way and done",
                              [&a](ClientVerbs& v) { return v.jobs(a.list); });
        add_list(jobs);
        add_filter(jobs, "state", "queued, running, succeeded, failed or cancelled");
        add_filter(jobs, "kind", "of that kind");
        CLI::App* job = verb(app_, "job", "One job", [&a](ClientVerbs& v) {
            return a.cancel  ? v.cancel_job(a.id)
                   : a.retry ? v.retry_job(a.id, a.wait)
                             : v.job(a.id, a.wait);
        });
        job->add_option("ID", a.id, "number of the job")->required();
        CLI::Option* wait = job->add_flag("--wait", a.wait, "wait for its end");
        CLI::Option* cancel = job->add_flag("--cancel", a.cancel, "ask it to end")->excludes(wait);
        job->add_flag("--retry", a.retry, "do again what it failed with, as a new job")
            ->excludes(cancel);
        CLI::App* events = verb(
            app_, "events", "What happened, newest first",
            [&a](ClientVerbs& v) { return a.follow ? v.follow_events(a.list) : v.events(a.list); });
        add_list(events);
        events->add_flag("--follow", a.follow, "what comes, until Ctrl-C");
        add_filter(events, "severity", "of that severity or worse");
        add_filter(events, "code", "with that code");
        verb(app_, "agents", "Agents and appliances", [](ClientVerbs& v) { return v.agents(); });
        verb(app_, "appliances",
             "Appliances, how it goes with them, and how many machines each has",
             [](ClientVerbs& v) { return v.appliances(); });
        CLI::App* alarms = verb(app_, "alarms", "What is wrong, newest first",
                                [&a](ClientVerbs& v) { return v.alarms(a.list, a.all_alarms); });
        add_list(alarms);
        add_filter(alarms, "severity", "of that severity or worse");
        add_filter(alarms, "code", "with that code");
        add_filter(alarms, "acknowledged", "that somebody has seen (true), or not (false)");
        alarms->add_flag("--all", a.all_alarms, "those that have cleared as well");
        CLI::App* alarm = app_.add_subcommand("alarm", "One alarm");
        alarm->require_subcommand(1);
        CLI::App* acknowledge =
            verb(*alarm, "acknowledge", "Say that somebody has seen it",
                 [&a](ClientVerbs& v) { return v.acknowledge_alarm(a.id, a.alarm_note); });
        acknowledge->add_option("ID", a.id, "number of the alarm")->required();
        acknowledge->add_option("--note", a.alarm_note, "what is being done about it");
        add_support_bundle();
        verb(app_, "nodes", "Vault nodes that share a database, and which of them leads",
             [](ClientVerbs& v) { return v.nodes(); });
        verb(app_, "server", "What the server is", [](ClientVerbs& v) { return v.server(); });
        CLI::App* extract = app_.add_subcommand(
            "extract", "Copy a disk at a point out of a store, with nothing but its key");
        add_store(extract, a.extract.store, a.extract.store_settings, "")->required();
        CLI::Option* key =
            extract->add_option("--key", a.extract.key_file, "key file, or an escrow");
        CLI::Option* source =
            extract->add_option("--key-source", a.extract.key_source, kKeySourceHelp)
                ->excludes(key);
        CLI::Option* passphrase =
            extract->add_option("--passphrase-file", a.extract.passphrase_file,
                                "passphrase of the store's key, or of the escrow");
        passphrase->excludes(source);
        extract
            ->add_option("--private-key", a.extract.private_key_file,
                         "RSA key in PEM that the escrow was sealed for")
            ->needs(key);
        extract->parse_complete_callback([&a] {
            if (a.extract.key_file.empty() && a.extract.key_source.empty() &&
                a.extract.passphrase_file.empty())
                throw CLI::RequiredError("--key, --key-source or --passphrase-file");
        });
        extract->add_option("--item", a.extract.item, "id or name of the item")->required();
        extract->add_option("--point", a.extract.point, kPointHelp)->capture_default_str();
        extract->add_option("--disk", a.extract.disk, "index of the disk")
            ->capture_default_str()
            ->check(CLI::Range(0, 63));
        extract->add_option("--out", a.extract.out, "raw file to make")->required();
        extract->add_flag("--force", a.extract.force, "replace the file");
        extract->add_flag("--json", a.json, "one JSON document on one line, for programs");
        extract->callback([this] {
            action_ = [this] {
                return run_extract(environment_, arguments_.extract, arguments_.json);
            };
        });
        CLI::App* catalog = app_.add_subcommand(
            "rebuild-catalog",
            "Build the vault's database anew from the store and the key file alone");
        catalog->add_option("--data", a.catalog.data, "data directory of the vault")->required();
        add_store(catalog, a.catalog.store, a.catalog.store_settings, " (DIR/store)");
        catalog->add_option("--key", a.catalog.key_file, "key file (DIR/vault/key)");
        catalog->add_flag("--replace", a.catalog.replace,
                          "move a database that is there aside, under a dated name");
        catalog->add_flag("--json", a.json, "one JSON document on one line, for programs");
        catalog->callback([this] {
            action_ = [this] {
                return run_rebuild_catalog(environment_, arguments_.catalog, arguments_.json);
            };
        });
        CLI::App* store = app_.add_subcommand("store", "Object stores");
        store->require_subcommand(1);
        CLI::App* check = store->add_subcommand(
            "check", "Try whether a store is fit for use; everything that is put is removed again");
        check->add_option("LOCATION", a.store_check.location, kStoreHelp)->required();
        check->add_option("--store-settings", a.store_check.settings, kStoreSettingsHelp);
        check->add_flag("--json", a.json, "one JSON document on one line, for programs");
        check->callback([this] {
            action_ = [this] {
                return run_store_check(environment_, arguments_.store_check, arguments_.json);
            };
        });
        add_stores(*store);
        add_notifiers();
        const AddRecoveryVerb of_recovery = recovery_verb();
        add_recovery_commands(
            app_, a.recovery,
            [this](CLI::App& parent, const std::string& name, const std::string& help,
                   const ClientVerb& run) { return verb(parent, name, help, run); },
            of_recovery, duration());
        add_compute_commands(app_, a.compute, compute_verb());
        add_site_commands(
            app_, a.described_site,
            [this](CLI::App& parent, const std::string& name, const std::string& help,
                   const SiteVerb& run) { return verb_of<SiteVerbs>(parent, name, help, run); });
        add_drill_commands(app_, a.drill, of_recovery, duration());
        add_recovery_plan_commands(app_, a.recovery_plan, of_recovery);
        add_access_commands(
            app_, a.access,
            [this](CLI::App& parent, const std::string& name, const std::string& help,
                   const ClientVerb& run) { return verb(parent, name, help, run); },
            duration());
        add_plan_commands(
            app_, a.plan,
            [this](CLI::App& parent, const std::string& name, const std::string& help,
                   const ClientVerb& run) { return verb(parent, name, help, run); },
            duration(), bandwidth_check());
        CLI::App* token = app_.add_subcommand("token", "Enrolment tokens");
        token->require_subcommand(1);
        CLI::App* create =
            verb(*token, "create", "A one-time token that admits an agent or appliance",
                 [&a](ClientVerbs& v) {
                     return v.create_token(a.token_kind, a.token_name, a.token_valid_s);
                 });
        create->add_option("--kind", a.token_kind, "agent or appliance")
            ->capture_default_str()
            ->check(CLI::IsMember({"agent", "appliance"}));
        create->add_option("--name", a.token_name, "the only name that it admits");
        create->add_option("--valid", a.token_valid_s, "seconds")->capture_default_str();
    }

    void add_notifiers() {
        Arguments& a = arguments_;
        CLI::App* notify = app_.add_subcommand("notify", "Who is told of events");
        notify->require_subcommand(1);
        for (const auto& [name, kind, help, target] :
             {std::tuple("add-webhook", "webhook", "Tell a program, by signed POSTs",
                         "https:// URL"),
              std::tuple("add-mail", "mail", "Tell people, by mail",
                         "addresses, separated by commas")}) {
            CLI::App* add =
                verb(*notify, name, help, [&a, kind = std::string(kind)](ClientVerbs& v) {
                    a.notifier.kind = kind;
                    return v.add_notifier(a.notifier);
                });
            add->add_option("NAME", a.notifier.name, "what it is to be called")->required();
            add->add_option("TO", a.notifier.target, target)->required();
            add->add_option("--settings", a.notifier.settings,
                            "file with its secrets (docs/operations/events.md), on the vault's "
                            "machine; only its owner may read it")
                ->required();
            add->add_option("--severity", a.notifier.severity,
                            "from which on: information, warning, critical")
                ->capture_default_str();
        }
        verb(*notify, "list", "Who is told, and whether it works",
             [](ClientVerbs& v) { return v.notifiers(); });
        verb(*notify, "test", "Send a message to try one",
             [&a](ClientVerbs& v) { return v.test_notifier(a.notifier.name); })
            ->add_option("NAME", a.notifier.name, "the notifier")
            ->required();
        verb(*notify, "remove", "Tell one nothing any more",
             [&a](ClientVerbs& v) { return v.remove_notifier(a.notifier.name); })
            ->add_option("NAME", a.notifier.name, "the notifier")
            ->required();
    }

    void add_stores(CLI::App& store) {
        Arguments& a = arguments_;
        CLI::App* add = verb(store, "add", "Take a store into use beside the vault's own",
                             [&a](ClientVerbs& v) { return v.add_store(a.store); });
        add->add_option("NAME", a.store.name, "what it is to be called")->required();
        add->add_option("LOCATION", a.store.location, kStoreHelp)->required();
        add->add_option("--store-settings", a.store.settings, kStoreSettingsHelp);
        add->add_flag("--take-over", a.store.take_over,
                      "although a vault has used it: that one is gone");
        verb(store, "list", "Stores, the vault's own first",
             [](ClientVerbs& v) { return v.stores(); });
        CLI::App* remove = verb(store, "remove", "Use it no more; what is in it stays",
                                [&a](ClientVerbs& v) { return v.remove_store(a.store.name); });
        remove->add_option("NAME", a.store.name, "the store")->required();

        CLI::App* copy = app_.add_subcommand("copy", "Copies of an item in other stores");
        copy->require_subcommand(1);
        const auto in_store = [&](const char* name, const char* help, const Verb& run) {
            CLI::App* app = named(*copy, name, help, run);
            app->add_option("--store", a.copy, "the store, as `store list` names it")->required();
            return app;
        };
        const auto with_policy = [&](const char* name, const char* help, bool adds) {
            CLI::App* app = in_store(name, help, [&a, adds](ClientVerbs& v) {
                return v.change_copy(a.name, a.copy, a.policy, adds);
            });
            app->add_option("--window", a.policy.window_s,
                            "in which every write is a point (the item's)")
                ->transform(duration());
            app->add_option("--keep", a.policy.keep, "which points stay behind it (the item's)");
        };
        with_policy("add", "Copy an item to another store, with a retention of its own", true);
        with_policy("set", "Change what a copy keeps", false);
        named(*copy, "list", "An item's copies, and how far they are",
              [&a](ClientVerbs& v) { return v.copies(a.name); });
        CLI::App* end =
            in_store("remove", "End a copy; its points stay in that store", [&a](ClientVerbs& v) {
                return v.remove_copy(a.name, a.copy, a.delete_points, !a.no_wait);
            });
        end->add_flag("--delete-points", a.delete_points, "delete them there");
        end->add_flag("--no-wait", a.no_wait, "do not wait for the job");
    }

    void add_support_bundle() {
        SupportBundleArguments& bundle = arguments_.support_bundle;
        CLI::App* app = verb(app_, "support-bundle",
                             "What somebody who helps needs to know, in one file without secrets",
                             [&bundle](ClientVerbs& v) { return v.support_bundle(bundle); });
        app->add_option("--output", bundle.output,
                        "the file (farshore-support-TIME.tar.gz, where you are)");
        app->add_option("--config-directory", bundle.config_directory,
                        "where vault.toml, appliance.toml and agent.toml are")
            ->capture_default_str();
        app->add_option("--log", bundle.logs,
                        "a log file, where it is not in the journal; once for each");
        app->add_flag("--audit", bundle.audit, "who did what, as well; for owners");
    }

    void add_config(CLI::App* app) {
        configured_.insert(app);
        app->add_option("--config", arguments_.config_file,
                        "TOML file with these options (docs/operations/configuration.md); the "
                        "command line wins");
    }

    // A server verb that a file can configure.
    template <typename Options>
    void serve_configured(CLI::App* app, const Options& options, int (*program)(const Options&)) {
        add_config(app);
        app->add_flag("--check", arguments_.check_only,
                      "only say whether options and configuration are right; starts nothing");
        app->callback([this, &options, program] {
            action_ = [this, &options, program] {
                if (!arguments_.check_only) return program(options);
                const Status checked = check_options(options);
                if (!checked) return exit_code_of(checked);
                *environment_.out << "ok\n";
                return 0;
            };
        });
    }

    template <typename Options>
    void serve(CLI::App* app, const Options& options, int (*program)(const Options&)) {
        app->callback([this, &options, program] {
            action_ = [&options, program] { return program(options); };
        });
    }

    CLI::Option* add_store(CLI::App* app, std::string& location, std::string& settings,
                           const std::string& otherwise) {
        app->add_option("--store-settings", settings, kStoreSettingsHelp);
        return app->add_option("--store", location, kStoreHelp + otherwise)
            ->check(store_location_check());
    }

    void add_up_options(CLI::App* app, UpOptions& options) {
        app->add_option("--data", options.data, "data directory; made when missing")->required();
        app->add_option("--listen", options.listen,
                        std::string("address of the API (") + kDefaultListen + ")")
            ->check(address_check());
        add_store(app, options.store, options.store_settings, " (DIR/store)");
        app->add_option("--database", options.database,
                        "PostgreSQL, e.g. postgresql://USER@HOST/NAME?passfile=FILE "
                        "(DIR/vault/farshore.db)");
        app->add_option("--node-address", options.node_address,
                        "HOST:PORT at which other vault nodes on that database reach this one "
                        "(--listen)");
        CLI::Option* key =
            app->add_option("--key", options.key_file, "key-encryption key file (DIR/vault/key)");
        app->add_option("--key-source", options.key_source, kKeySourceHelp)->excludes(key);
        app->add_option("--time-zone", options.time_zone,
                        "of time windows that name none, e.g. Europe/Berlin (the machine's)")
            ->check(time_zone_check());
        app->add_option("--scrub-bandwidth", options.scrub_bandwidth,
                        "what scrubs read from the store in a second, like --bandwidth of `set` "
                        "(20MB/s)")
            ->check(bandwidth_check());
        app->add_flag("--take-over", options.take_over,
                      "take the store back from a vault that replaced this one (vault-replaced)");
        app->add_option("--oidc", options.oidc,
                        "settings of the OpenID provider that people may log in with "
                        "(docs/operations/access.md)");
        app->add_option("--run-directory", options.run_directory,
                        "where sockets and logs of recovered machines are, a short path; QEMU of a "
                        "compute host here must be able to pass through it (DIR/vault/run)");
        app->add_option("--server-name", options.names,
                        "further DNS name or address for the certificate");
        add_log(app, options.log);
    }

    void add_log(CLI::App* app, LogChoice& choice) {
        app->add_option("--log-level", choice.level, "debug, info, warn or error")
            ->check(log_level_check());
        app->add_option("--log-format", choice.format,
                        "text, or json: one JSON document a line (docs/operations/logs.md)")
            ->check(log_format_check());
    }

    void add_metrics(CLI::App* app, std::string& address) {
        app->add_option("--metrics-listen", address,
                        "loopback HOST:PORT at which Prometheus fetches numbers from /metrics "
                        "(none)")
            ->check(metrics_address_check());
    }

    void add_capture_bounds(CLI::App* app, CaptureBounds& bounds) {
        add_ring_bounds(app, bounds);
        app->add_option("--spill-mib", bounds.spill_mib,
                        "disk for records of one machine when the ring is full; 0: none")
            ->capture_default_str()
            ->check(CLI::Range(0, 64 << 20));
        app->add_option("--shared-dir", bounds.shared_directory, "tmpfs for the rings")
            ->capture_default_str();
        app->add_option("--freeze-limit", bounds.freeze_limit_s,
                        "seconds for which a machine's file systems are frozen at most")
            ->capture_default_str()
            ->check(CLI::Range(1u, kMaxFreezeS));
        app->add_option("--script-limit", bounds.script_limit_s,
                        "seconds for one script of a machine's consistent point")
            ->capture_default_str()
            ->check(CLI::Range(1u, kMaxScriptS));
    }

    void add_ring_bounds(CLI::App* app, CaptureBounds& bounds) {
        app->add_option("--ring-mib", bounds.ring_mib, "memory for records of one machine")
            ->capture_default_str()
            ->check(CLI::Range(1, 65'536));
        app->add_option("--trace-ring-kib", bounds.trace_ring_kib,
                        "kernel memory for the writes of this machine's own disks; a power of two")
            ->capture_default_str()
            ->check(CLI::Range(64, 1 << 20));
    }

    void add_spool_bound(CLI::App* app, uint64_t& spool_mib) {
        app->add_option("--spool-mib", spool_mib,
                        "disk for received records of one machine that are not stored yet")
            ->capture_default_str()
            ->check(CLI::Range(64, 64 << 20));
    }

    void add_bandwidth(CLI::App* app, std::string& bandwidth) {
        app->add_option("--bandwidth", bandwidth,
                        "what may be sent to the store in a second for all items together, e.g. "
                        "'20MB/s Mon-Fri 08:00-18:00 Europe/Berlin; 200MB/s' (no limit)")
            ->check(bandwidth_check());
    }

    void add_health_limits() {
        Arguments& a = arguments_;
        CLI::App* limits = verb(app_, "health-limits",
                                "From where on components are a warning or critical; change it",
                                [&a](ClientVerbs& v) { return v.health_limits(a.limits); });
        const auto pair = [&](const char* name, std::vector<uint32_t>& to, const char* help) {
            limits->add_option(name, to, help)->delimiter(',')->expected(2);
        };
        pair("--cpu", a.limits.cpu_percent, "WARNING,CRITICAL: processors busy, percent (80,95)");
        pair("--memory", a.limits.memory_percent, "WARNING,CRITICAL: memory in use (80,95)");
        pair("--spool-free", a.limits.spool_free_percent,
             "WARNING,CRITICAL: of an appliance's spool, percent (30,25)");
        pair("--upload-eta", a.limits.upload_eta_min,
             "WARNING,CRITICAL: until an appliance has stored what it has, minutes (30,45)");
        limits->add_option("--lasting", a.limits.lasting_s, "how long it has been so (15min)")
            ->transform(duration());
        limits->add_option("--silent", a.limits.silent_s, "an appliance is silent after (1min)")
            ->transform(duration());
    }

    void add_appliance_moves(CLI::App& appliance) {
        Arguments& a = arguments_;
        const auto add_lost = [&a](CLI::App* app) {
            app->add_flag("--lost", a.lost,
                          "the appliance that has them will not come back: what only it has is "
                          "copied again");
        };
        CLI::App* move = verb(appliance, "move", "Give machines to another appliance",
                              [&a](ClientVerbs& v) { return v.move_items(a.items, a.to, a.lost); });
        move->add_option("ITEM", a.items, "names or ids of items")->required();
        move->add_option("--to", a.to, "the appliance")->required();
        add_lost(move);
        CLI::App* evacuate =
            verb(appliance, "evacuate", "Give all machines of an appliance to others",
                 [&a](ClientVerbs& v) { return v.evacuate_appliance(a.name, a.to, a.lost); });
        evacuate->add_option("NAME", a.name, "the appliance that is to have none")->required();
        evacuate->add_option("--to", a.to,
                             "the appliance that takes them (all others of its site)");
        add_lost(evacuate);
        CLI::App* balance =
            verb(appliance, "balance", "Share the machines of a site evenly among its appliances",
                 [&a](ClientVerbs& v) { return v.balance_appliances(a.site); });
        balance->add_option("--site", a.site, "the site (each)");
    }

    void add_appliance(CLI::App& appliance) {
        Arguments& a = arguments_;
        add_appliance_moves(appliance);
        add_health_limits();
        CLI::App* serve_verb = appliance.add_subcommand("serve", "Run it");
        CLI::App* check = appliance.add_subcommand(
            "check", "Try every step to all that it must reach; changes nothing");
        for (CLI::App* app : {serve_verb, check}) {
            app->add_option("--data", a.appliance.data, "data directory")->required();
            app->add_option("--vault", a.appliance.vault,
                            "https://host:port; of several nodes with commas between")
                ->required()
                ->check(vault_url_check());
            app->add_option("--ca", a.appliance.ca_file, "certificate of its authority");
            app->add_option("--enrol-token-file", a.appliance.token_file,
                            "file with an enrolment token, for the first start");
            app->add_option("--name", a.appliance.name, "its name (the host's)");
            add_store(app, a.appliance.store, a.appliance.store_settings, "")->required();
            app->add_option("--proxy", a.appliance.proxy,
                            "http://host:port of the proxy to vault and store (none)");
            app->add_option("--proxy-settings", a.appliance.proxy_settings,
                            "file with its user and password; only its owner may read it");
            app->add_option("--replication-listen", a.appliance.replication_listen,
                            "address for agents")
                ->check(address_check());
            app->add_option("--advertise", a.appliance.advertise,
                            "host:port at which agents reach it (where it listens)")
                ->check(address_check());
            app->add_option("--site", a.appliance.site, "the site that it belongs to (default)");
            add_metrics(app, a.appliance.metrics_listen);
            add_log(app, a.appliance.log);
            add_spool_bound(app, a.appliance.spool_mib);
            add_bandwidth(app, a.appliance.bandwidth);
            app->add_option("--time-zone", a.appliance.time_zone,
                            "of windows of --bandwidth that name none (the machine's)")
                ->check(time_zone_check());
        }
        serve_configured(serve_verb, a.appliance, run_appliance);
        add_config(check);
        check->add_flag("--json", a.json, "one JSON document on one line, for programs");
        check->callback([this] {
            action_ = [this] {
                return run_appliance_check(environment_, arguments_.appliance, arguments_.json);
            };
        });
    }

    void add_servers() {
        Arguments& a = arguments_;
        CLI::App* up = app_.add_subcommand(
            "up", "Agent, appliance and vault in one process: all that one machine needs");
        add_up_options(up, a.up);
        up->add_option(
              "--replication-listen", a.up.replication_listen,
              std::string("address for agents elsewhere (") + kDefaultReplicationListen + ")")
            ->check(address_check());
        add_capture_bounds(up, a.up.capture);
        add_spool_bound(up, a.up.spool_mib);
        add_bandwidth(up, a.up.bandwidth);
        add_metrics(up, a.up.metrics_listen);
        serve_configured(up, a.up, run_up);

        CLI::App* vault = app_.add_subcommand("vault", "The vault alone");
        vault->require_subcommand(1);
        CLI::App* migrate = vault->add_subcommand(
            "migrate-database", "Move the database of a stopped vault to PostgreSQL");
        migrate->add_option("--data", a.migrate_data, "data directory of the vault")->required();
        migrate->add_option("--to", a.migrate_to, "PostgreSQL, as --database of `vault serve`")
            ->required();
        migrate->add_flag("--json", a.json, "one JSON document on one line, for programs");
        migrate->callback([this] {
            action_ = [this] {
                return run_migrate_database(environment_, arguments_.migrate_data,
                                            arguments_.migrate_to, arguments_.json);
            };
        });
        CLI::App* vault_serve = vault->add_subcommand("serve", "Run it");
        add_up_options(vault_serve, a.vault.common);
        serve_configured(vault_serve, a.vault, run_vault);

        CLI::App* appliance =
            app_.add_subcommand("appliance", "The appliance alone, and whose machines it has");
        appliance->require_subcommand(1);
        add_appliance(*appliance);

        CLI::App* agent = app_.add_subcommand("agent", "The agent alone");
        agent->require_subcommand(1);
        CLI::App* agent_serve = agent->add_subcommand("serve", "Run it");
        agent_serve->add_option("--data", a.agent.data, "data directory")->required();
        agent_serve
            ->add_option("--appliance", a.agent.appliance,
                         "host:port; of several appliances with commas between")
            ->required()
            ->check(addresses_check());
        agent_serve->add_option("--ca", a.agent.ca_file, "certificate of the vault's authority");
        agent_serve->add_option("--enrol-token-file", a.agent.token_file,
                                "file with an enrolment token, for the first start");
        agent_serve->add_option("--name", a.agent.name, "its name (the host's)");
        add_metrics(agent_serve, a.agent.metrics_listen);
        add_log(agent_serve, a.agent.log);
        add_capture_bounds(agent_serve, a.agent.capture);
        serve_configured(agent_serve, a.agent, run_agent);

        for (CLI::App* parent : {agent, appliance})
            verb(*parent, "revoke", "Refuse one from now on, on connections that stand, too",
                 [&a](ClientVerbs& v) { return v.revoke_agent(a.name); })
                ->add_option("NAME", a.name, "as `agents` shows it")
                ->required();
        CLI::App* check = agent->add_subcommand(
            "check", "Whether this machine's own disks can be captured; changes nothing");
        check->add_option("--device", a.check.devices, "a disk; once for each (all of them)");
        a.check.data_directory = a.capture.agent_data;
        check->add_option("--data", a.check.data_directory, "data directory of the agent")
            ->capture_default_str();
        add_ring_bounds(check, a.check_bounds);
        check->add_flag("--json", a.json, "one JSON document on one line, for programs");
        check->callback([this] {
            action_ = [this] {
                CaptureCheckOptions& options = arguments_.check;
                options.ring_bytes = arguments_.check_bounds.ring_mib << 20;
                options.trace_ring_bytes = arguments_.check_bounds.trace_ring_kib << 10;
                return run_agent_check(environment_, options, arguments_.json);
            };
        });

        // Started by the agent, not by people.
        CLI::App* capture = app_.add_subcommand("capture", "Capture of this machine's disks");
        capture->group("");
        capture->require_subcommand(1);
        CLI::App* capture_serve = capture->add_subcommand("serve", "Run it");
        capture_serve->add_option("--config", a.capture.config_file, "configuration")->required();
        capture_serve->add_option("--ready", a.capture.ready_file, "file to make when it captures");
        add_log(capture_serve, a.capture.log);
        serve(capture_serve, a.capture, run_capture);
        const auto add_part = [&](const char* name, const char* help,
                                  int (*program)(const CaptureServeOptions&)) {
            CLI::App* part = capture->add_subcommand(name, help);
            part->add_option("--config", a.capture.early_file, "what is captured");
            add_log(part, a.capture.log);
            serve(part, a.capture, program);
            return part;
        };
        CLI::App* freeze = capture->add_subcommand("freeze", "Freeze file systems for a moment");
        freeze->add_option("MOUNT", a.freeze.mounts, "where they are mounted");
        freeze->add_option("--guest-agent", a.freeze_guest,
                           "instead: the socket of a machine's guest agent, which freezes them");
        freeze->add_option("--timeout-ms", a.freeze.timeout_ms, "thaw after that in any case");
        freeze->add_flag("--thaw", a.freeze.thaw_only, "only thaw");
        freeze->callback([this, &a] {
            action_ = [&a] { return run_capture_freeze(a.freeze, a.freeze_guest); };
        });
        add_part("early", "In the initramfs: capture from the first write on", run_capture_early);
        add_part("save", "At the end of a shutdown: keep what is left", run_capture_save)
            ->add_option("WHY", a.capture.why, "reboot, halt, poweroff or kexec");
        add_part("stop", "End every capture on this machine", run_capture_stop)
            ->add_option("--data", a.capture.agent_data, "data directory of the agent");
    }

    static constexpr const char* kKeySourceHelp =
        "where the key comes from: file:PATH, passphrase:FILE, passphrase-fd:N, passphrase-prompt, "
        "env[:FARSHORE_KEY...], credential:NAME or azure:SETTINGS";
    static constexpr const char* kStoreHelp =
        "the object store: a directory, s3://BUCKET[/PREFIX] or "
        "azure://ACCOUNT/CONTAINER[/PREFIX]";
    static constexpr const char* kStoreSettingsHelp =
        "file with the store's endpoint, keys and proxy; only its owner may read it";
    CliEnvironment& environment_;
    Arguments arguments_;
    CLI::App app_;
    std::set<const CLI::App*> configured_;
    std::function<int()> action_;
};

}  // namespace

int run_cli(CliEnvironment& environment, int argc, const char* const* argv) {
    Parser parser(environment);
    return parser.run(argc, argv);
}

}  // namespace farshore
