#include "cli/access_commands.h"

#include "meta/sites.h"

namespace farshore {
namespace {

constexpr const char* kPasswordHelp = "file with the password; asked for when it is not named";

void add_rights(CLI::App* app, AccessArguments& a, const char* otherwise) {
    app->add_option("--role", a.role,
                    std::string("reader, operator, contributor or owner (") + otherwise + ")")
        ->check(CLI::IsMember({"reader", "operator", "contributor", "owner"}));
    app->add_option("--item", a.items, "name or id of an item that it is for, once for each");
    app->add_option_function<std::vector<std::string>>(
        "--site",
        [&a](const std::vector<std::string>& sites) {
            for (const std::string& site : sites)
                a.items.push_back(std::string(kSitePrefix) + site);
        },
        "a site whose items it is for, once for each");
}

void add_users(CLI::App& app, AccessArguments& a, const AddClientVerb& verb) {
    CLI::App* user = app.add_subcommand("user", "Who may use the vault");
    user->require_subcommand(1);
    const auto of_user = [&](const char* name, const char* help, const ClientVerb& run) {
        CLI::App* of = verb(*user, name, help, run);
        of->add_option("NAME", a.name, "the user")->required();
        return of;
    };
    CLI::App* add = of_user("add", "Let somebody use the vault",
                            [&a](ClientVerbs& v) { return v.add_user(a); });
    add_rights(add, a, "reader");
    add->add_option("--password-file", a.password_file, kPasswordHelp);
    verb(*user, "list", "Users, their roles and items", [](ClientVerbs& v) { return v.users(); });
    CLI::App* set = of_user("set", "Change role or items; counts at once",
                            [&a](ClientVerbs& v) { return v.set_user(a); });
    add_rights(set, a, "as it is");
    set->add_flag("--all-items", a.all_items, "for all items again");
    CLI::Option* disable = set->add_flag("--disable", a.disable, "refuse everything at once");
    set->add_flag("--enable", a.enable, "no more")->excludes(disable);
    of_user("password", "Set somebody's password; ends their logins", [&a](ClientVerbs& v) {
        return v.set_user_password(a);
    })->add_option("--password-file", a.password_file, kPasswordHelp);
    of_user("remove", "Let somebody in no more",
            [&a](ClientVerbs& v) { return v.remove_user(a.name); });
}

void add_tokens(CLI::App& app, AccessCommandArguments& arguments, const AddClientVerb& verb,
                const CLI::Validator& duration) {
    AccessArguments& a = arguments.access;
    CLI::App* token = app.add_subcommand("access-token", "Tokens for programs");
    token->require_subcommand(1);
    CLI::App* create = verb(*token, "create", "A token with at most your own rights; shown once",
                            [&a](ClientVerbs& v) { return v.create_access_token(a); });
    create->add_option("NAME", a.name, "what it is to be called")->required();
    add_rights(create, a, "yours");
    create->add_option("--valid", a.valid_s, "for how long, 60 s to 366 d (90 d)")
        ->transform(duration);
    CLI::App* list = verb(*token, "list", "Your tokens and logins",
                          [&arguments](ClientVerbs& v) { return v.access_tokens(arguments.all); });
    list->add_flag("--all", arguments.all, "everybody's; for owners");
    verb(*token, "revoke", "Refuse one from now on",
         [&a](ClientVerbs& v) { return v.revoke_access_token(a.name); })
        ->add_option("ID", a.name, "as `access-token list` shows it")
        ->required();
}

}  // namespace

void add_access_commands(CLI::App& app, AccessCommandArguments& arguments,
                         const AddClientVerb& verb, const CLI::Validator& duration) {
    AccessArguments& a = arguments.access;
    CLI::App* login = verb(app, "login", "Log in; the verbs act as that user from then on",
                           [&a](ClientVerbs& v) { return v.login(a); });
    login->add_option("--user", a.name, "the user (USER)");
    CLI::Option* with_password =
        login->add_option("--password-file", a.password_file, kPasswordHelp);
    login
        ->add_option("--id-token-file", a.id_token_file,
                     "file with an ID token of the server's OpenID provider, instead")
        ->excludes(with_password);
    verb(app, "logout", "End the login", [](ClientVerbs& v) { return v.logout(); });
    verb(app, "whoami", "Who you are here, and with which rights",
         [](ClientVerbs& v) { return v.whoami(); });
    CLI::App* password = verb(app, "password", "Change your own password",
                              [&a](ClientVerbs& v) { return v.change_password(a); });
    password->add_option("--old-password-file", a.old_password_file, kPasswordHelp);
    password->add_option("--password-file", a.password_file, "the same with the new one");
    add_users(app, a, verb);
    add_tokens(app, arguments, verb, duration);
    CLI::App* audit = verb(app, "audit", "Who did what, from where; what was refused, too",
                           [&arguments](ClientVerbs& v) { return v.audit(arguments.audit); });
    audit->add_option("--who", arguments.audit.who, "of one user");
    audit->add_option("--item", arguments.audit.item, "of one item, by its name");
    audit->add_option("--outcome", arguments.audit.outcome, "ok, or the code of an error");
    audit->add_option("--limit", arguments.audit.limit, "the newest so many")
        ->capture_default_str();
}

}  // namespace farshore
