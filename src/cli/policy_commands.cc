#include "cli/policy_commands.h"

namespace farshore {

void add_policy_commands(CLI::App& app, NamedPolicyArguments& arguments, const AddClientVerb& verb,
                         const std::function<void(CLI::App*, PolicyArguments&)>& add_values) {
    NamedPolicyArguments& a = arguments;
    CLI::App* policy = app.add_subcommand("policy", "Policies that many items follow");
    policy->require_subcommand(1);
    verb(*policy, "list", "All policies, and how many items follow each",
         [](ClientVerbs& v) { return v.policies(); });
    const auto of_policy = [&](const char* name, const char* help, const ClientVerb& run) {
        CLI::App* of = verb(*policy, name, help, run);
        of->add_option("NAME", a.name, "the policy")->required();
        return of;
    };
    const auto add_asking = [&](CLI::App* of) {
        CLI::Option* preview =
            of->add_flag("--preview", a.preview, "show what it would do, and change nothing");
        of->add_flag("--yes", a.yes, "do not ask")->excludes(preview);
    };
    of_policy("show", "Its values, and the items that follow it",
              [&a](ClientVerbs& v) { return v.policy(a.name); });
    add_values(of_policy("create", "A policy; what is not named is as in the built-in one",
                         [&a](ClientVerbs& v) { return v.create_policy(a); }),
               a.values);
    CLI::App* edit = of_policy("edit", "Change it, for every item that follows it",
                               [&a](ClientVerbs& v) { return v.edit_policy(a); });
    add_values(edit, a.values);
    add_asking(edit);
    of_policy("remove", "Remove one that no item follows",
              [&a](ClientVerbs& v) { return v.remove_policy(a.name); });
    CLI::App* assign = of_policy("assign", "Have items follow it",
                                 [&a](ClientVerbs& v) { return v.assign_policy(a); });
    assign->add_option("ITEM", a.items, "names or ids of items")->required();
    add_asking(assign);
}

}  // namespace farshore
