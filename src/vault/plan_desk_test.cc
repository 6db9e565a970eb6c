#include <gmock/gmock.h>
#include <sys/stat.h>

#include <fstream>

#include "meta/items.h"
#include "meta/recovery_plans.h"
#include "os/waiting.h"
#include "recovery/plan_run.h"
#include "vault/notify_message.h"
#include "vault/test_site.h"

namespace farshore {
namespace {

using testing::HasSubstr;
using testing::Not;

// What a webhook was told.
struct Hook {
    Hook() {
        HttpServerOptions options;
        options.plain_on_loopback = true;
        auto started = HttpServer::start(options, [this](const HttpRequest& request) {
            const std::lock_guard hold(mutex);
            requests.push_back(request);
            return HttpResponse::text("", status);
        });
        EXPECT_TRUE(started) << started.error().to_string();
        server = std::move(*started);
    }
    std::string url() const { return "http://" + server->address() + "/secret-path"; }
    std::vector<HttpRequest> seen() {
        const std::lock_guard hold(mutex);
        return requests;
    }
    std::mutex mutex;
    std::vector<HttpRequest> requests;
    int status = 202;
    std::unique_ptr<HttpServer> server;
};

// A vault without machines: what is around them.
struct Plans : testing::Test {
    Plans() {
        std::filesystem::create_directories(scripts());
        std::ofstream(hook_settings()) << R"({"secret": "between us"})";
        ::chmod(hook_settings().c_str(), 0600);
    }
    std::string scripts() const { return site.directory + "/vault/scripts"; }
    std::string hook_settings() const { return site.directory + "/hook.json"; }
    void script(const std::string& name, const std::string& body) {
        const std::string path = scripts() + "/" + name;
        std::ofstream(path) << "#!/bin/sh\n" << body;
        ::chmod(path.c_str(), 0755);
    }
    // A plan whose one item fails and is skipped, with those actions before it.
    void add_plan(const Json& before) {
        site.call("POST", "/v1/recovery-plans", 201,
                  {{"plan",
                    {{"name", "p"},
                     {"groups",
                      {{{"name", "g"},
                        {"before", before},
                        {"items", {{{"name", "nothing"}, {"on_failure", "skip"}}}}}}}}}});
    }
    Json start(const std::string& mode = "failover") {
        return site.call("POST", "/v1/recovery-plans/p/runs", 202, {{"mode", mode}});
    }
    std::string run_target(const Json& run, const std::string& rest = {}) {
        return "/v1/plan-runs/" + std::to_string(run["id"].get<int>()) + rest;
    }
    Json now(const Json& run) { return site.call("GET", run_target(run), 200); }
    // Until `done` is true of it.
    template <typename Done>
    Json wait_for(const Json& run, Done done) {
        Json seen;
        EXPECT_TRUE(wait_until(60'000, 10, [&] {
            site.clock.us += 20'000;  // the run's pauses are of this clock
            seen = now(run);
            return done(seen);
        })) << dump_json(seen, 2);
        return seen;
    }
    Json wait_state(const Json& run, const std::string& state) {
        return wait_for(run, [&](const Json& seen) { return seen["state"] == state; });
    }
    Json wait_step(const Json& run, const std::string& state) {
        return wait_for(run, [&](const Json& seen) { return seen["steps"][0]["state"] == state; });
    }
    // A run of the plan "p" as an earlier vault has left it.
    uint64_t left_run(const PlanRun& run) {
        PlanRunRecord record;
        record.plan = "p";
        record.mode = std::string(plan_mode_name(run.mode));
        const auto added =
            add_plan_run(site.vault().database(), record, false, [&](PlanRunRecord& kept) {
                PlanRun whole = run;
                whole.id = kept.id;
                whole.plan = "p";
                kept.state = std::string(plan_run_state_name(run.state));
                kept.document = encode_plan_run(whole);
            });
        EXPECT_TRUE(added) << added.error().to_string();
        return added->id;
    }
    int callback(const std::string& target, const Json& token, const std::string& outcome) {
        HttpClientOptions nobody;
        nobody.authority_pem = site.vault().authority_pem();
        HttpClient client(nobody);
        return site
            .request(client, "POST", target,
                     {{"token", token}, {"outcome", outcome}, {"note", "changed"}})
            .status;
    }
    size_t lines(const std::string& path) {
        std::ifstream file(path);
        std::string line;
        size_t count = 0;
        while (std::getline(file, line)) ++count;
        return count;
    }

    Site site;
};

const Json kManual = {{{"name", "ask"},
                       {"kind", "manual"},
                       {"instructions", "Is the <line> up?"},
                       {"for", {"failover"}},
                       {"limit_s", 3600}}};

// Broken if a script did not get what it is told, or the run's report lost what it said.
TEST_F(Plans, ScriptsRunAndAreReported) {
    script("tell.sh", "echo \"$1 $FARSHORE_PLAN $FARSHORE_MODE $FARSHORE_STEP\"");
    add_plan({{{"name", "tell <them>"},
               {"kind", "script"},
               {"program", "tell.sh"},
               {"arguments", {"a b"}},
               {"for", {"failover", "test"}}}});
    const Json run = start();
    const Json ended = wait_state(run, "incomplete");
    EXPECT_EQ(ended["steps"][0]["state"], "succeeded");
    EXPECT_EQ(ended["steps"][0]["output"], "a b p failover g1-before-1\n");
    EXPECT_EQ(ended["steps"][1]["state"], "failed") << "nobody starts machines here";
    EXPECT_THAT(ended["steps"][1]["error"]["detail"].get<std::string>(), HasSubstr("no recovery"));
    EXPECT_EQ(ended["by"], "administrator");
    const HttpResponse page = site.request(*site.http, "GET", run_target(run, "/report"));
    EXPECT_EQ(page.header("content-type"), "text/html; charset=utf-8");
    EXPECT_THAT(page.body, HasSubstr("tell &lt;them&gt;"));
    EXPECT_THAT(page.body, HasSubstr("a b p failover"));
    EXPECT_TRUE(std::filesystem::is_empty(site.directory + "/vault/script-runs"));
}

// Broken if a vault that starts again in the middle of a run forgot it, or did a step twice.
TEST_F(Plans, ARunOutlivesItsVault) {
    script("count.sh", "echo x >> " + site.directory + "/count; cat " + site.directory + "/fifo");
    ASSERT_EQ(::mkfifo((site.directory + "/fifo").c_str(), 0600), 0);
    add_plan(
        {{{"name", "count"}, {"kind", "script"}, {"program", "count.sh"}, {"for", {"failover"}}}});
    const Json run = start();
    ASSERT_TRUE(wait_until(60'000, 10, [&] { return lines(site.directory + "/count") == 1; }));
    for (int i = 0; i < 2; ++i) {
        site.start();
        EXPECT_EQ(now(run)["steps"][0]["state"], "running");
    }
    std::ofstream(site.directory + "/fifo") << "heard\n";
    const Json ended = wait_state(run, "incomplete");
    EXPECT_EQ(ended["steps"][0]["output"], "heard\n");
    EXPECT_EQ(lines(site.directory + "/count"), 1u);
}

// Broken if a script that fails let the run go on, or it could not be gone on with.
TEST_F(Plans, AFailureStopsTheRunUntilSomebodyResumesIt) {
    script("gate.sh", "test -e " + site.directory + "/open");
    add_plan(
        {{{"name", "gate"}, {"kind", "script"}, {"program", "gate.sh"}, {"for", {"failover"}}}});
    const Json run = start();
    const Json stopped = wait_state(run, "stopped");
    EXPECT_EQ(stopped["steps"][0]["error"]["detail"], "the script exited with 1");
    EXPECT_EQ(stopped["steps"][1]["state"], "waiting");
    EXPECT_EQ(site.refused("POST", "/v1/recovery-plans/p/runs", {{"mode", "failover"}}),
              "wrong-state")
        << "one real run at a time";
    EXPECT_EQ(site.refused("DELETE", "/v1/recovery-plans/p"), "wrong-state");
    std::ofstream(site.directory + "/open") << "";
    site.call("POST", run_target(run, "/resume"), 202, {{"skip", Json::array()}});
    const Json ended = wait_state(run, "incomplete");
    EXPECT_EQ(ended["steps"][0]["state"], "succeeded");
    EXPECT_EQ(site.refused("POST", run_target(run, "/resume"), Json::object()), "wrong-state");
    EXPECT_EQ(site.refused("POST", run_target(run, "/stop")), "wrong-state");
    EXPECT_EQ(site.refused("POST", run_target(run, "/cleanup")), "wrong-state") << "it is no test";
    site.call("DELETE", "/v1/recovery-plans/p", 204);
}

// Broken if a person's answer were taken twice, for another step, or lost with the vault.
TEST_F(Plans, APersonIsAskedOnce) {
    add_plan(kManual);
    const Json run = start();
    const Json waits = wait_step(run, "running");
    EXPECT_EQ(waits["steps"][0]["waits_for_answer"], true);
    const auto answer_target = run_target(run, "/steps/g1-before-1/answer");
    site.start();
    EXPECT_EQ(
        site.refused("POST", run_target(run, "/steps/g1-item-1/answer"), {{"outcome", "done"}}),
        "wrong-state");
    EXPECT_EQ(site.refused("POST", run_target(run, "/steps/x/answer"), {{"outcome", "done"}}),
              "not-found");
    EXPECT_EQ(site.refused("POST", answer_target, {{"outcome", "perhaps"}}), "malformed");
    site.call("POST", answer_target, 202, {{"outcome", "done"}, {"note", "it is"}});
    const Json ended = wait_state(run, "incomplete");
    EXPECT_EQ(ended["steps"][0]["note"], "it is");
    EXPECT_EQ(ended["steps"][0]["by"], "administrator");
    EXPECT_EQ(site.refused("POST", answer_target, {{"outcome", "failed"}}), "wrong-state");
}

// Broken if a person who never comes held the run for ever.
TEST_F(Plans, APersonWhoNeverComesIsWaitedForSoLong) {
    add_plan(kManual);
    const Json run = start();
    wait_step(run, "running");
    site.clock.us += 3'601'000'000;
    const Json stopped = wait_state(run, "stopped");
    EXPECT_EQ(stopped["steps"][0]["error"]["code"], "timeout");
    site.call("POST", run_target(run, "/cancel"), 202);
    EXPECT_EQ(now(run)["state"], "cancelled");
}

// Broken if a run could not be stopped while it waits, or an answer that comes late counted.
TEST_F(Plans, WhoeverStopsARunDoesNotWaitForAPerson) {
    add_plan(kManual);
    const Json run = start();
    wait_step(run, "running");
    site.call("POST", run_target(run, "/stop"), 202);
    wait_state(run, "stopped");
    EXPECT_EQ(
        site.refused("POST", run_target(run, "/steps/g1-before-1/answer"), {{"outcome", "done"}}),
        "wrong-state");
    site.call("POST", run_target(run, "/resume"), 202, {{"skip", {"g1-before-1"}}});
    const Json ended = wait_state(run, "incomplete");
    EXPECT_EQ(ended["steps"][0]["state"], "skipped");
}

// Broken if a webhook could not check who asks it, an answer counted without its token or twice, or
// its address got into the run for everybody to read.
TEST_F(Plans, AWebhookCallsBackOnce) {
    Hook hook;
    add_plan({{{"name", "dns"},
               {"kind", "webhook"},
               {"url", hook.url()},
               {"settings", hook_settings()},
               {"for", {"failover"}}}});
    const Json run = start();
    ASSERT_TRUE(wait_until(60'000, 10, [&] {
        site.clock.us += 20'000;
        return !hook.seen().empty();
    }));
    const HttpRequest told = hook.seen().front();
    const Json body = Json::parse(told.body);
    EXPECT_EQ(body["step"], "g1-before-1");
    const std::string signature = told.headers.at("farshore-signature");
    const std::string time = signature.substr(2, signature.find(',') - 2);
    EXPECT_EQ(signature, webhook_signature(Secret(as_bytes(std::string_view("between us"))),
                                           {std::stoll(time) * 1'000'000}, told.body));
    const std::string url = body["callback"]["url"];
    EXPECT_THAT(url, HasSubstr("https://" + site.server->address() + "/v1/plan-callbacks/"));
    const std::string target = url.substr(url.find("/v1/"));
    const auto callback = [&](const std::string& token, const std::string& outcome) {
        HttpClientOptions nobody;
        nobody.authority_pem = site.vault().authority_pem();
        HttpClient client(nobody);
        return site
            .request(client, "POST", target,
                     {{"token", token}, {"outcome", outcome}, {"note", "changed"}})
            .status;
    };
    EXPECT_EQ(callback("wrong", "done"), 404);
    EXPECT_EQ(callback(std::string(64, '0'), "done"), 404);
    EXPECT_EQ(now(run)["steps"][0]["state"], "running");
    EXPECT_EQ(callback(body["callback"]["token"], "done"), 204);
    const Json ended = wait_state(run, "incomplete");
    EXPECT_EQ(ended["steps"][0]["state"], "succeeded");
    EXPECT_EQ(ended["steps"][0]["note"], "changed");
    EXPECT_EQ(callback(body["callback"]["token"], "failed"), 404);
    EXPECT_EQ(dump_json(ended).find("secret-path"), std::string::npos);
    EXPECT_EQ(hook.seen().size(), 1u);
}

// Broken if a webhook were told again, or its answer were lost, because somebody stopped the run or
// the vault was restarted meanwhile.
TEST_F(Plans, AWebhookMayAnswerWhileTheRunIsStopped) {
    Hook hook;
    add_plan({{{"name", "dns"},
               {"kind", "webhook"},
               {"url", hook.url()},
               {"settings", hook_settings()},
               {"limit_s", 86'400},
               {"for", {"failover"}}}});
    const Json run = start();
    ASSERT_TRUE(wait_until(60'000, 10, [&] {
        site.clock.us += 20'000;
        return !hook.seen().empty();
    }));
    const Json told = Json::parse(hook.seen().front().body)["callback"];
    const std::string url = told["url"], target = url.substr(url.find("/v1/"));
    // Until it is kept that it was heard.
    wait_for(run, [&](const Json&) {
        const auto kept = decode_plan_run(
            get_plan_run(site.vault().database(), run["id"].get<uint64_t>())->document);
        return kept->steps[0].reference == "told";
    });
    site.start();
    EXPECT_EQ(callback(target, "wrong", "done"), 404);
    site.call("POST", run_target(run, "/stop"), 202);
    EXPECT_EQ(wait_state(run, "stopped")["steps"][0]["state"], "waiting");
    site.start();
    EXPECT_EQ(callback(target, told["token"], "done"), 204) << "at once";
    site.call("POST", run_target(run, "/resume"), 202, {{"skip", Json::array()}});
    const Json ended = wait_state(run, "incomplete");
    EXPECT_EQ(ended["steps"][0]["state"], "succeeded");
    EXPECT_EQ(ended["steps"][0]["note"], "changed");
    EXPECT_EQ(hook.seen().size(), 1u);
    EXPECT_EQ(callback(target, told["token"], "failed"), 404);
}

// Broken if a run that works and has no job could not be gone on with until the vault restarts.
TEST_F(Plans, ARunWithoutAJobGetsOne) {
    add_plan(kManual);
    PlanRun run;
    run.state = PlanRunState::kRunning;
    const auto plan = plan_from_json(site.call("GET", "/v1/recovery-plans/p", 200)["plan"]);
    ASSERT_TRUE(plan) << plan.error().to_string();
    run = make_plan_run(*plan, PlanMode::kFailover);
    const Json left{{"id", left_run(run)}};
    site.call("POST", run_target(left, "/resume"), 202, {{"skip", Json::array()}});
    wait_step(left, "running");
    EXPECT_EQ(site.refused("POST", run_target(left, "/resume"), {{"skip", Json::array()}}),
              "wrong-state")
        << "now it has one";
}

// Broken if the clean-up of a test whose machines are on another node said that it was done.
TEST_F(Plans, MachinesOfAnotherNodeAreNotCleanedUpHere) {
    add_plan(kManual);
    PlanRun run;
    run.mode = PlanMode::kTest;
    run.state = PlanRunState::kStopped;
    PlanStep step;
    step.id = "g1-item-1";
    step.action.kind = StepKind::kItem;
    step.action.name = "db";
    step.state = StepState::kSucceeded;
    step.handle = std::string(24, 'a');
    step.node = "the-other-node";
    run.steps.push_back(step);
    const Json left{{"id", left_run(run)}};
    const HttpResponse response = site.request(*site.http, "POST", run_target(left, "/cleanup"));
    EXPECT_EQ(response.status, 409);
    EXPECT_THAT(response.body, HasSubstr("the-other-node"));
    EXPECT_EQ(now(left)["state"], "stopped") << "it is not cancelled either";
}

// Broken if a webhook that lies (says yes and never calls), or that says no, held the run.
TEST_F(Plans, AWebhookThatLiesIsWaitedForSoLong) {
    Hook hook;
    add_plan({{{"name", "dns"},
               {"kind", "webhook"},
               {"url", hook.url()},
               {"settings", hook_settings()},
               {"limit_s", 300},
               {"for", {"failover"}}}});
    const Json run = start();
    ASSERT_TRUE(wait_until(60'000, 10, [&] { return !hook.seen().empty(); }));
    site.clock.us += 301'000'000;
    Json stopped = wait_state(run, "stopped");
    EXPECT_EQ(stopped["steps"][0]["error"]["detail"],
              "the webhook has not called back within 300 s");
    hook.status = 403;
    site.call("POST", run_target(run, "/resume"), 202, Json::object());
    ASSERT_TRUE(wait_until(60'000, 10, [&] { return hook.seen().size() == 2; }));
    stopped = wait_state(run, "stopped");
    EXPECT_EQ(stopped["steps"][0]["error"]["detail"], "the webhook answers 403");
}

// Broken if a run began that was bound to fail, or the look beforehand changed something.
TEST_F(Plans, WhatWouldFailIsFoundBefore) {
    site.call(
        "POST", "/v1/recovery-plans", 201,
        {{"plan",
          {{"name", "p"},
           {"groups",
            {{{"name", "g"},
              {"before",
               {{{"name", "a"}, {"kind", "script"}, {"program", "none.sh"}, {"for", {"failover"}}},
                {{"name", "b"},
                 {"kind", "webhook"},
                 {"url", "https://x/"},
                 {"settings", "/no/such/file"},
                 {"for", {"failover"}}}}},
              {"items", {{{"name", "nothing"}}}}}}}}}});
    const Json found = site.call("POST", "/v1/recovery-plans/p/check", 200, {{"mode", "failover"}});
    EXPECT_EQ(found["would_run"], false);
    std::set<std::string> steps;
    for (const Json& finding : found["findings"])
        if (finding.contains("step")) steps.insert(finding["step"].get<std::string>());
    EXPECT_THAT(steps, testing::ElementsAre("g1-before-1", "g1-before-2", "g1-item-1"));
    EXPECT_EQ(site.refused("POST", "/v1/recovery-plans/p/runs", {{"mode", "failover"}}),
              "wrong-state");
    EXPECT_TRUE(site.call("GET", "/v1/plan-runs", 200)["runs"].empty());
    EXPECT_EQ(site.call("GET", "/v1/jobs", 200)["jobs"].size(), 0u);
    site.call("POST", "/v1/recovery-plans/p/runs", 202,
              {{"mode", "failover"}, {"unchecked", true}});
}

// Broken if nobody were told before that the disk cannot take what the machines will write.
TEST(PlanCheck, ADiskThatWouldFillUpIsFoundBefore) {
    struct Recovering : Site {
        Recovering() { start(); }
        VaultServerOptions options() const override {
            VaultServerOptions options = Site::options();
            options.recovery = true;
            return options;
        }
    } site;
    const ProtectedItem item(site);
    site.call(
        "POST", "/v1/recovery-plans", 201,
        {{"plan", {{"name", "p"}, {"groups", {{{"name", "g"}, {"items", {{{"name", "web"}}}}}}}}}});
    const auto found = [&] {
        const Json check = site.call("POST", "/v1/recovery-plans/p/check", 200, {{"mode", "test"}});
        std::string words;
        for (const Json& finding : check["findings"])
            words += finding["severity"].get<std::string>() + ": " +
                     finding["what"].get<std::string>() + "\n";
        return words;
    };
    EXPECT_THAT(found(), Not(HasSubstr("free in the vault's directory")));
    ASSERT_TRUE(change_item(site.vault().database(), item.item, [](ItemRecord& to) -> Status {
        to.disks.at(0).size_bytes = uint64_t{1} << 60;
        return {};
    }));
    EXPECT_THAT(found(), HasSubstr("warning: "));
    EXPECT_THAT(found(), HasSubstr("free in the vault's directory for what 1 machines write"));
}

}  // namespace
}  // namespace farshore
