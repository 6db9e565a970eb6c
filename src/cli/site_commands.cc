#include "cli/site_commands.h"

#include <fmt/core.h>

#include "cli/api_documents.h"
#include "cli/client_verbs_impl.h"
#include "cli/format.h"

namespace farshore {

SiteVerbs::SiteVerbs(CliEnvironment& environment, const LocationOptions& location, bool json)
    : impl_(new ClientVerbs::Impl{environment, location, json, nullptr, 0}) {}
SiteVerbs::~SiteVerbs() = default;

int SiteVerbs::sites() {
    auto answer = impl_->call("GET", "/v1/sites");
    if (!answer) return impl_->failed(answer.error());
    if (impl_->json) {
        impl_->print(*answer);
        return 0;
    }
    Table table({{"SITE"}, {"APPLIANCES"}, {"ITEMS"}, {"HEALTH"}, {"DESCRIPTION"}});
    if (const Json& sites = member(*answer, "sites"); sites.is_array())
        for (const Json& site : sites) {
            const Json& appliances = member(site, "appliances");
            table.add({printable(text_of(site, "name")),
                       fmt::format("{} of {} connected", count_of(site, "connected_appliances"),
                                   appliances.is_array() ? appliances.size() : 0),
                       std::to_string(count_of(site, "items")), text_of(site, "health"),
                       printable(text_of(site, "description"))});
        }
    impl_->say(table.empty() ? "There is none: no appliance was heard of.\n" : table.to_string());
    return 0;
}

int SiteVerbs::describe(const SiteArguments& arguments) {
    auto answer = impl_->call("PUT", "/v1/sites/" + url_encode(arguments.name),
                              {{"description", arguments.description}});
    if (!answer) return impl_->failed(answer.error());
    if (impl_->json)
        impl_->print(*answer);
    else
        impl_->say("Described.\n");
    return 0;
}

int SiteVerbs::remove(const std::string& name) {
    auto answer = impl_->call("DELETE", "/v1/sites/" + url_encode(name));
    if (!answer) return impl_->failed(answer.error());
    if (!impl_->json) impl_->say("Removed.\n");
    return 0;
}

void add_site_commands(CLI::App& app, SiteArguments& arguments, const AddSiteVerb& verb) {
    SiteArguments& a = arguments;
    CLI::App* site = app.add_subcommand("site", "Where appliances stand");
    site->require_subcommand(1);
    verb(*site, "list", "Sites, their appliances and items",
         [](SiteVerbs& v) { return v.sites(); });
    CLI::App* set =
        verb(*site, "set", "Say what a site is", [&a](SiteVerbs& v) { return v.describe(a); });
    set->add_option("NAME", a.name, "of the site")->required();
    set->add_option("--description", a.description, "for people")->required();
    verb(*site, "remove", "Forget a site at which no appliance is any more",
         [&a](SiteVerbs& v) { return v.remove(a.name); })
        ->add_option("NAME", a.name, "of the site")
        ->required();
}

}  // namespace farshore
