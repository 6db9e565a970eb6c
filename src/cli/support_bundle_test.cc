#include "cli/support_bundle.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "cli/shown_configuration.h"
#include "os/test_paths.h"

namespace farshore {
namespace {

using nlohmann::json;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Key;
using ::testing::Not;

std::string text_of(const std::string& path) {
    std::ifstream file(test_source_directory() + "/" + path);
    std::stringstream text;
    text << file.rdbuf();
    return text.str();
}

// A machine, and a vault that a test makes up.
struct Machine {
    std::map<std::string, std::string> files;
    std::map<std::string, std::string> journal;  // by unit
    bool vault_up = true;
    int asked = 0;
    json notifiers = json::array();

    CliEnvironment environment() {
        CliEnvironment environment;
        environment.read_file = [this](const std::string& path) -> Result<std::string> {
            if (!files.contains(path)) return fail(Code::kNotFound, "there is no " + path);
            return files[path];
        };
        environment.run = [this](const std::vector<std::string>& command,
                                 int64_t) -> Result<std::string> {
            if (command[0] != "journalctl")
                return fail(Code::kDependencyMissing, command[0] + " is not there");
            const auto found = journal.find(command[2]);
            return found == journal.end() ? std::string() : found->second;
        };
        environment.fetch = [](const std::string& url) -> Result<std::string> {
            return "numbers of " + url + "\n";
        };
        return environment;
    }
    BundleApi api() {
        const auto answer = [this](json document) -> Result<json> {
            ++asked;
            if (!vault_up) return fail(Code::kUnavailable, "nobody is there");
            return document;
        };
        return {[this, answer](const std::string& target) {
                    if (target == "/v1/notifiers") return answer({{"notifiers", notifiers}});
                    return answer({{"of", target}});
                },
                [answer](const std::string& target, const char*, const char*, uint64_t) {
                    return answer({{"of", target}});
                },
                [](const std::string&) -> Result<std::string> { return "numbers\n"; }};
    }
    SupportBundle gather(const SupportBundleArguments& arguments = {}) {
        CliEnvironment fake = environment();
        const BundleApi vault = api();
        return gather_bundle(fake, vault, arguments);
    }
};

std::string whole(const SupportBundle& bundle) {
    std::string all = bundle.missing_text();
    for (const auto& [member, text] : bundle.members) all += member + "\n" + text;
    return all;
}

// Broken if a password that somebody wrote where none belongs went to whoever helps.
TEST(SupportBundle, WhatIsInAWrongPlaceIsNotShown) {
    Machine machine;
    machine.files["/etc/farshore/vault.toml"] =
        "data = '/srv/v'\ndatabase = 'postgresql://u:PLANTED@h/d'\n"
        "key-source = 'passphrase:PLANTED'\npasword = 'PLANTED'\nlisten = '0.0.0.0:8443'\n"
        "server-name = ['vault.example.org']\n";
    machine.files["/etc/farshore/appliance.toml"] =
        "data = '/srv/a'\nproxy = 'http://u:PLANTED@proxy:3128'\n"
        "vault = 'https://u:PLANTED@v:8443'\nname = 'site-1'\n"
        "metrics-listen = '127.0.0.1:9102'\n";
    machine.files["/etc/farshore/agent.toml"] = "data = 'PLANTED\n";
    machine.notifiers = json::parse(
        R"([{"name":"ops","kind":"webhook","target":"https://hooks.example.com/PLANTED",
             "severity":"warning","error":{"code":"timeout","detail":"PLANTED"}}])");
    const SupportBundle bundle = machine.gather();
    EXPECT_THAT(whole(bundle), Not(HasSubstr("PLANTED")));
    const json vault = json::parse(bundle.members.at("configuration/vault.json"))["settings"];
    EXPECT_EQ(vault["data"], "/srv/v");
    EXPECT_EQ(vault["listen"], "0.0.0.0:8443");
    EXPECT_EQ(vault["server-name"], json::array({"vault.example.org"}));
    EXPECT_EQ(vault["database"], kNotShown);
    EXPECT_EQ(vault["pasword"], kNotShown);
    EXPECT_EQ(vault["key-source"], std::string("passphrase:") + kNotShown);
    const json appliance =
        json::parse(bundle.members.at("configuration/appliance.json"))["settings"];
    EXPECT_EQ(appliance["name"], "site-1");
    EXPECT_EQ(appliance["proxy"], kNotShown);
    EXPECT_EQ(bundle.members.at("metrics/appliance.txt"),
              "numbers of http://127.0.0.1:9102/metrics\n");
    EXPECT_THAT(bundle.missing_text(), HasSubstr("configuration/agent.json: malformed"));
    const json notifier = json::parse(bundle.members.at("api/notifiers.json"))["notifiers"][0];
    EXPECT_EQ(notifier["name"], "ops");
    EXPECT_EQ(notifier["error"], "timeout");
}

// Broken if a new option went out without that somebody has thought about it.
TEST(SupportBundle, EveryOptionIsDecided) {
    for (const char* part : {"vault", "appliance", "agent"}) {
        std::stringstream lines(text_of(std::string("packaging/config/") + part + ".toml"));
        std::string all;
        for (std::string line; std::getline(lines, line);)
            all += (line.size() > 1 && line[0] == '#' && line[1] != ' ' ? line.substr(1) : line) +
                   "\n";
        const auto settings = parse_config(all, part);
        ASSERT_TRUE(settings);
        for (const ConfigSetting& setting : *settings)
            EXPECT_TRUE(is_decided(setting.key)) << setting.key;
    }
}

// Broken if a secret of the store's settings, or one of a kind that comes later, were shown.
TEST(SupportBundle, OfTheStoresSettingsNoSecretIsShown) {
    StoreSettings settings;
    settings.location = "s3://bucket/p";
    settings.endpoint = "https://s3.example.org";
    settings.access_key_id = "PLANTED";
    settings.proxy = "http://PLANTED@proxy:1";
    settings.proxy_user = "PLANTED";
    for (Secret* secret : {&settings.secret_access_key, &settings.session_token,
                           &settings.account_key, &settings.sas, &settings.proxy_password})
        *secret = Secret(as_bytes("PLANTED"));
    const json shown = shown_store_settings(settings);
    EXPECT_THAT(shown.dump(), Not(HasSubstr("PLANTED")));
    EXPECT_EQ(shown["endpoint"], "https://s3.example.org");
    EXPECT_EQ(shown["secret_access_key"], kNotShown);
    EXPECT_EQ(shown_store_settings({})["secret_access_key"], "") << "one sees that it is not set";
}

// Broken if a vault that is down, which is when a bundle is wanted, kept all the rest away or were
// waited for with each piece.
TEST(SupportBundle, WithoutAVaultTheRestIsThere) {
    Machine machine;
    machine.vault_up = false;
    machine.journal["farshore-vault.service"] = "why it ended\n";
    const SupportBundle bundle = machine.gather();
    EXPECT_EQ(machine.asked, 1);
    EXPECT_THAT(bundle.members, Contains(Key("versions.json")));
    EXPECT_EQ(bundle.members.at("logs/farshore-vault.log"), "why it ended\n");
    EXPECT_THAT(bundle.missing_text(), HasSubstr("api: unavailable: nobody is there\n"));
    EXPECT_THAT(bundle.missing_text(), HasSubstr("logs/farshore-agent.log: "));
    EXPECT_THAT(bundle.missing_text(), HasSubstr("configuration/vault.json: "));
}

// Broken if the audit, which says who did what, went out unasked.
TEST(SupportBundle, TheAuditIsThereWhenAskedFor) {
    Machine machine;
    EXPECT_THAT(machine.gather().members, Not(Contains(Key("api/audit.json"))));
    SupportBundleArguments arguments;
    arguments.audit = true;
    const SupportBundle bundle = machine.gather(arguments);
    for (const char* name : {"server", "items", "alarms", "jobs", "events", "agents", "appliances",
                             "nodes", "stores", "keys", "notifiers", "audit"})
        EXPECT_THAT(bundle.members, Contains(Key(std::string("api/") + name + ".json")));
    EXPECT_EQ(bundle.members.at("metrics/vault.txt"), "numbers\n");
}

}  // namespace
}  // namespace farshore
