#include <fmt/core.h>
#include <gtest/gtest.h>

#include <deque>
#include <map>
#include <sstream>

#include "cli/client_verbs.h"
#include "cli/environment.h"
#include "cli/format.h"
#include "cli/server_location.h"
#include "cli/test_terminal.h"
#include "meta/json_fields.h"

namespace farshore {
namespace {

constexpr const char* kItem =
    R"({"id":"00000000000000000000000000000001","name":"web","state":"protected","health":"warning",)"
    R"("mode":"mirror","agent":"host1","qmp_socket":"/run/web.qmp",)"
    R"("disks":[{"index":0,"path":"/d/web.img","size_bytes":10737418240}],)"
    R"("policy":{"crash_point_interval_s":300,"keep":"1h:1w","window_s":86400},"rpo_s":0.84,"rpo_worst_s":75.2,)"
    R"("lag_bytes":1536,"lag_records":1234,)"
    R"("oldest_point":{"sequence":10,"time":"2026-01-31T08:00:00.000000Z"},)"
    R"("newest_point":{"sequence":1234567,"time":"2026-01-31T09:00:00.250000Z","kind":"bookmark","label":"before"},)"
    R"("written_bytes":2048,"stored_bytes":1024,)"
    R"("troubles":[{"severity":"warning","code":"rpo-high","cause":"the newest point is old","remedy":"look at the line"}]})";

// Broken if people read other words than those shown here: the golden output of the verbs.
TEST(Cli, ShowsItemsAsATable) {
    Terminal t;
    t.script = {{"GET /v1/items?limit=1000", std::string(R"({"items":[)") + kItem + "]}"}};
    EXPECT_EQ(t.run({"items"}), 0);
    EXPECT_EQ(t.out.str(),
              "NAME  STATE      HEALTH     RPO       WORST      LAG   STORED  NEWEST POINT\n"
              "web   protected  warning  0.8 s  1 min 15 s  1.5 KiB  1.0 KiB  "
              "2026-01-31 09:00:00.250 UTC\n");
}

// Broken if a longer list than a page of the server's ended with its first one, or went on behind
// what was asked for.
TEST(Cli, ListsPointsPageByPage) {
    const auto page = [](int from, int to, int next) {
        std::string points;
        for (int sequence = from; sequence >= to; --sequence)
            points += fmt::format(R"({}{{"sequence":{}}})", sequence == from ? "" : ",", sequence);
        return fmt::format(R"({{"points":[{}],"gaps":[],"next":{}}})", points, next);
    };
    Terminal t;
    t.script = {
        {"GET /v1/items/web/points?limit=1000&kind=crash", page(5000, 4001, 4001)},
        {"GET /v1/items/web/points?limit=200&before=4001&kind=crash", page(4000, 3801, 3801)}};
    EXPECT_EQ(t.run({"points", "web", "--limit", "1200", "--kind", "crash", "--json"}), 0);
    const Json all = Json::parse(t.out.str());
    ASSERT_EQ(all["points"].size(), 1200u);
    EXPECT_EQ(all["points"].back()["sequence"], 3801);
    EXPECT_EQ(all["next"], 3801);
    t.script = {{"GET /v1/items/web/points?limit=1000", page(5000, 4001, 4001)},
                {"GET /v1/items/web/points?limit=1000&before=4001", R"({"points":[],"gaps":[]})"}};
    EXPECT_EQ(t.run({"points", "web", "--limit", "5000", "--json"}), 0);
    EXPECT_FALSE(Json::parse(t.out.str()).contains("next"));
}

TEST(Cli, ShowsOneItem) {
    Terminal t;
    t.script = {{"GET /v1/items/web", std::string(kItem)}};
    EXPECT_EQ(t.run({"item", "web"}), 0);
    EXPECT_EQ(t.out.str(),
              "Item          web  (00000000000000000000000000000001)\n"
              "State         protected, warning\n"
              "RPO           0.8 s now, 1 min 15 s worst in the last hour\n"
              "Lag           1.5 KiB, 1 234 records\n"
              "Oldest point  10  2026-01-31 08:00:00.000 UTC\n"
              "Newest point  1 234 567  2026-01-31 09:00:00.250 UTC  bookmark  \"before\"\n"
              "Written       2.0 KiB, stored 1.0 KiB\n"
              "Captured      mirror by host1\n"
              "QMP socket    /run/web.qmp\n"
              "Disk 0        10 GiB  /d/web.img\n"
              "Policy        points every 5 min 0 s, every write for 1 d 0 h, then 1h:1w\n"
              "Warning       rpo-high: the newest point is old; look at the line\n");
}

// Broken if --json printed anything else than the server's document on one line.
TEST(Cli, JsonIsTheDocument) {
    Terminal t;
    t.script = {
        {"GET /v1/items/web", std::string(R"({"name":"web","sequence":9223372036854775807})")}};
    EXPECT_EQ(t.run({"item", "web", "--json"}), 0);
    EXPECT_EQ(t.out.str(), "{\"name\":\"web\",\"sequence\":9223372036854775807}\n");
    EXPECT_EQ(t.err.str(), "");
}

// Broken if a script could not tell failures apart: exit code and words of the server's error.
TEST(Cli, ErrorsBecomeExitCodes) {
    Terminal t;
    for (auto [code, exit] : {std::pair{Code::kItemNotFound, 66},
                              {Code::kPointOutsideWindow, 66},
                              {Code::kUnauthenticated, 77},
                              {Code::kWrongState, 75}}) {
        t.script = {{"GET /v1/items/x", fail(code, "no\n'x'", "try y")}};
        EXPECT_EQ(t.run({"item", "x"}), exit);
        EXPECT_EQ(t.err.str(),
                  "farshore: " + std::string(code_name(code)) + ": no\\x0a'x'; try y\n");
        EXPECT_EQ(t.out.str(), "");
    }
    t.script = {{"GET /v1/items/x", fail(Code::kItemNotFound, "no 'x'")}};
    EXPECT_EQ(t.run({"item", "x", "--json"}), 66);
    EXPECT_EQ(t.err.str(),
              "{\"code\":\"item-not-found\",\"detail\":\"no 'x'\","
              "\"type\":\"urn:farshore:error:item-not-found\"}\n");
}

// Broken if mistyped commands did something, or ended with a code that means something else.
TEST(Cli, UsageErrors) {
    Terminal t;
    for (const auto& words : std::vector<std::vector<const char*>>{
             {},
             {"itemz"},
             {"item"},
             {"item", "network"},
             {"item", "network", "x", "--test", "none", "--clear"},
             {"protect", "x"},
             {"protect", "x", "--qmp", "a", "--disk", "b"},
             {"point", "x"},
             {"failover", "x"},
             {"failover", "change-point", "x"},
             {"failover", "move", "x"},
             {"export", "x"},
             {"job", "seven"}}) {
        EXPECT_EQ(t.run(words), 64);
        EXPECT_NE(t.err.str(), "");
    }
    EXPECT_EQ(t.run({"--help"}), 0);
    EXPECT_EQ(t.run({"--version"}), 0);
    EXPECT_EQ(t.out.str().substr(0, 9), "farshore ");
}

// Broken if a client asked the wrong server or sent the token of another one.
TEST(Cli, FindsTheServer) {
    Terminal t;
    const std::string none = "{\"items\":[]}";
    t.script = {{"GET /v1/items?limit=1000", none}};
    EXPECT_EQ(t.run({"items"}), 0);
    EXPECT_EQ(t.connected.url, "https://127.0.0.1:8443");
    EXPECT_EQ(t.connected.ca_file, "/data/pki/ca.crt");
    EXPECT_EQ(t.connected.token_file, "/data/t");
    t.variables["FARSHORE_SERVER"] = "far:1";
    t.variables["FARSHORE_CA"] = "/ca";
    t.script = {{"GET /v1/items?limit=1000", none}};
    EXPECT_EQ(t.run({"items", "--token-file", "/token"}), 0);
    EXPECT_EQ(t.connected.url, "https://far:1");
    EXPECT_EQ(t.connected.ca_file, "/ca");
    EXPECT_EQ(t.connected.token_file, "/token");
    t.variables.clear();
    EXPECT_EQ(t.run({"items"}), 69);
    EXPECT_NE(t.err.str().find("/var/lib/farshore/server.json"), std::string::npos);
    EXPECT_EQ(t.run({"items", "--server", "http://far:1", "--token-file", "x"}), 64);
    EXPECT_EQ(t.run({"items", "--server", "far:1"}), 77);
    t.files["/here/d/server.json"] = "{\"format\":9,\"address\":\"x\"}";
    EXPECT_EQ(t.run({"items", "--data", "d"}), 65);
}

// Broken if protect did not send absolute paths, or hid that nothing captures the machine.
TEST(Cli, ProtectPrintsTheSocketOrTheTrouble) {
    Terminal t;
    const std::string request =
        R"(POST /v1/items {"disks":["/here/a.img","/b.img"],"name":"web","wait_s":30})";
    t.script = {{request,
                 R"({"id":"1","name":"web","state":"initial-replication","nbd_socket":"/run/s"})"}};
    EXPECT_EQ(t.run({"protect", "web", "--disk", "a.img", "--disk", "/b.img"}), 0);
    EXPECT_EQ(t.out.str(), "'web' is initial-replication, id 1.\nNBD socket: /run/s\n");
    t.script = {{request, R"({"id":"1","name":"web","state":"enabling"})"}};
    EXPECT_EQ(t.run({"protect", "web", "--disk", "a.img", "--disk", "/b.img"}), 75);
    EXPECT_NE(t.err.str().find("no agent captures 'web' yet"), std::string::npos);
    t.script = {{request,
                 R"({"id":"1","name":"web","state":"enabling","troubles":[)"
                 R"({"severity":"critical","code":"forbidden","cause":"may not read a.img"}]})"}};
    EXPECT_EQ(t.run({"protect", "web", "--disk", "a.img", "--disk", "/b.img"}), 77);
    EXPECT_NE(t.err.str().find("may not read a.img"), std::string::npos);
}

// Broken if a time with a unit were sent as another one, or the points of a policy were not shown.
TEST(Cli, ConsistentPointsByPolicy) {
    Terminal t;
    for (const auto& [given, seconds] : {std::pair{"90", "90"}, {"5min", "300"}, {"2h", "7200"}}) {
        t.script = {{fmt::format(R"(POST /v1/items {{"devices":["/dev/vda"],"name":"db","policy":)"
                                 R"({{"consistent_interval_s":{}}},"wait_s":30}})",
                                 seconds),
                     R"({"id":"1","name":"db","state":"initial-replication"})"}};
        EXPECT_EQ(t.run({"protect", "db", "--device", "/dev/vda", "--consistent-interval", given}),
                  0);
    }
    EXPECT_EQ(
        t.run({"protect", "db", "--device", "/dev/vda", "--consistent-interval", "2 fortnights"}),
        64);
    t.script = {{"GET /v1/items/db", R"({"name":"db","consistent_points":{"interval_s":3600}})"}};
    EXPECT_EQ(t.run({"item", "db"}), 0);
    EXPECT_NE(t.out.str().find("Consistent    every 1 h 0 min, none yet\n"), std::string::npos)
        << t.out.str();
    t.script = {{"GET /v1/items/db", R"({"name":"db","consistent_points":{"interval_s":300,)"
                                     R"("last_time":"2026-01-31T09:00:00.250000Z"}})"}};
    EXPECT_EQ(t.run({"item", "db"}), 0);
    EXPECT_NE(t.out.str().find("every 5 min 0 s, newest 2026-01-31 09:00:00.250 UTC\n"),
              std::string::npos)
        << t.out.str();
}

// Broken if a bookmark were reported before it is stored.
TEST(Cli, BookmarkWaitsUntilStored) {
    Terminal t;
    t.script = {
        {R"(POST /v1/items/web/bookmarks {"label":"a b","wait_s":30})",
         R"({"id":"b1","state":"requested","label":"a b"})"},
        {"GET /v1/bookmarks/b1?wait_s=10", R"({"id":"b1","state":"made","sequence":7})"},
        {"GET /v1/bookmarks/b1?wait_s=10",
         R"({"id":"b1","state":"stored","sequence":7,"time":"2026-01-31T08:00:00Z","label":"a b"})"}};
    EXPECT_EQ(t.run({"point", "web", "--bookmark", "a b"}), 0);
    EXPECT_EQ(t.out.str(), "7  2026-01-31 08:00:00.000 UTC  \"a b\"\n");
    t.script = {{R"(POST /v1/items/web/bookmarks {"label":"x","wait_s":20})",
                 R"({"id":"b1","state":"requested","label":"x"})"}};
    EXPECT_EQ(t.run({"point", "web", "--bookmark", "x", "--timeout", "20"}), 75);
}

// Broken if a consistent point were asked for as any other, or its refusal lost its code.
TEST(Cli, ConsistentPointsAreAskedForAsSuch) {
    Terminal t;
    t.script = {
        {R"(POST /v1/items/web/bookmarks {"kind":"application","label":"x","wait_s":30})",
         R"({"id":"b1","state":"stored","sequence":7,"time":"2026-01-31T08:00:00Z","label":"x"})"}};
    EXPECT_EQ(t.run({"point", "web", "--bookmark", "x", "--consistent"}), 0);
    EXPECT_EQ(t.run({"point", "web", "--point", "x", "--consistent"}), 64);
}

// Broken if an export ended before Ctrl-C, was not renewed, or stayed after it.
TEST(Cli, ExportLastsUntilInterrupted) {
    Terminal t;
    t.pauses_until_interrupt = 2;  // the first look is before anything is asked for
    const std::string document =
        R"({"id":"e1","item":"web","disk":1,"socket":"/here/s","uri":"nbd+unix:///?socket=/here/s",)"
        R"("point":{"sequence":5},"size_bytes":9})";
    t.script = {
        {R"(POST /v1/items/web/exports {"disk":1,"point":"latest","socket":"/here/s"})", document},
        {"GET /v1/exports/e1", document},
        {"DELETE /v1/exports/e1", ""}};
    EXPECT_EQ(t.run({"export", "web", "--disk", "1", "--socket", "s"}), 0);
    EXPECT_EQ(t.out.str(), "Disk 1 of 'web' at 5\nnbd+unix:///?socket=/here/s\n");
}

// Broken if one value that is set for a network card took the others away, or if an item could not
// be looked at any more because of the verb beneath.
TEST(Cli, WhatIsNotNamedOfANetworkCardStays) {
    Terminal t;
    const std::string before =
        R"({"item":"web","nics":[{"nic":0,"mac":"keep","model":"e1000","test":"none"}]})";
    const std::string after =
        R"({"item":"web","nics":[{"nic":0,"mac":"new","model":"e1000","test":"none"}]})";
    t.script = {{"GET /v1/items/web/nics", before},
                {R"(PUT /v1/items/web/nics/0 {"settings":{"mac":"new","test":"none"}})", "{}"},
                {"GET /v1/items/web/nics", after}};
    EXPECT_EQ(t.run({"item", "network", "web", "--mac", "new"}), 0);
    EXPECT_NE(t.out.str().find("none"), std::string::npos);
    const std::string given =
        R"({"item":"web","nics":[{"nic":0,"mac":"keep","address":"10.1.2.3/24","by":"dhcp"}]})";
    t.script = {
        {"GET /v1/items/web/nics", given},
        {R"(PUT /v1/items/web/nics/0 {"settings":{"address":"10.1.2.3/24","by":"cloud-init","mac":"keep"}})",
         "{}"},
        {"GET /v1/items/web/nics", given}};
    EXPECT_EQ(t.run({"item", "network", "web", "--address-by", "cloud-init"}), 0);
    t.script = {{"GET /v1/items/web/nics", given},
                {R"(PUT /v1/items/web/nics/0 {"settings":{"mac":"keep"}})", "{}"},
                {"GET /v1/items/web/nics", before}};
    EXPECT_EQ(t.run({"item", "network", "web", "--address", "none"}), 0) << "and who gives it";
    EXPECT_EQ(t.run({"item", "network", "web", "--address-by", "luck"}), 64);
    t.script = {{"DELETE /v1/items/web/nics/1", ""}, {"GET /v1/items/web/nics", after}};
    EXPECT_EQ(t.run({"item", "network", "web", "--nic", "1", "--clear"}), 0);
    t.script = {{"GET /v1/items/web", R"({"id":"1","name":"web"})"}};
    EXPECT_EQ(t.run({"item", "web", "--json"}), 0);
    t.script = {{R"(POST /v1/items/web/failovers {"action":"test","network":"segment:lab"})",
                 R"({"id":4,"kind":"test-failover","state":"queued","progress":0})"}};
    EXPECT_EQ(t.run({"failover", "test", "web", "--network", "segment:lab", "--no-wait"}), 0);
}

// Broken if a failed job ended with success, or a vault that restarts ended the waiting.
TEST(Cli, FailoverWaitsForItsJob) {
    Terminal t;
    t.script = {{R"(POST /v1/items/web/failovers {"action":"test","point":"before"})",
                 R"({"id":4,"kind":"test-failover","state":"queued","progress":0})"},
                {"GET /v1/jobs/4?wait_s=10", fail(Code::kConnectionLost, "gone")},
                {"GET /v1/jobs/4?wait_s=10",
                 R"({"id":4,"kind":"test-failover","item":"web","state":"succeeded","progress":1,)"
                 R"("result":{"monitor":"/run/q"}})"}};
    EXPECT_EQ(t.run({"failover", "test", "web", "--point", "before"}), 0);
    EXPECT_EQ(t.out.str(),
              "Job      4  test-failover\nItem     web\nState    succeeded\nmonitor  /run/q\n");
    t.script = {
        {"GET /v1/jobs/4", R"({"id":4})"},
        {"GET /v1/jobs/4?wait_s=10",
         R"({"id":4,"state":"failed","error":{"code":"guest-failed","detail":"no boot"}})"}};
    EXPECT_EQ(t.run({"job", "4", "--wait"}), 70);
    EXPECT_EQ(t.err.str(), "farshore: guest-failed: no boot\n");
    t.pauses_until_interrupt = 0;
    t.script = {{"GET /v1/jobs/4", R"({"id":4})"},
                {"GET /v1/jobs/4?wait_s=10", R"({"id":4,"state":"running","progress":0.5})"}};
    EXPECT_EQ(t.run({"job", "4", "--wait"}), 130);
}

TEST(Cli, ProgressOnATerminalIsCleared) {
    Terminal t;
    t.terminal = true;
    t.script = {{"GET /v1/jobs/4", R"({"id":4})"},
                {"GET /v1/jobs/4?wait_s=1",
                 R"({"id":4,"state":"running","progress":0.5,"eta_s":80,"message":"copying"})"},
                {"GET /v1/jobs/4?wait_s=1", R"({"id":4,"kind":"k","state":"succeeded"})"}};
    EXPECT_EQ(t.run({"job", "4", "--wait"}), 0);
    const std::string line = "[############------------]  50 %  1 min 20 s left  copying";
    EXPECT_EQ(t.err.str(), "\r" + line + "\r" + std::string(line.size(), ' ') + "\r");
}

// Broken if lists were cut at a page, or a server that repeats itself were asked for ever.
TEST(Cli, ListsFollowPages) {
    Terminal t;
    t.script = {
        {"GET /v1/events?item=a%20b&limit=3", R"({"events":[{"id":9},{"id":8}],"next":8})"},
        {"GET /v1/events?item=a%20b&limit=1&before=8", R"({"events":[{"id":7}],"next":7})"}};
    EXPECT_EQ(t.run({"events", "--item", "a b", "--limit", "3", "--json"}), 0);
    EXPECT_EQ(t.out.str(), "{\"events\":[{\"id\":9},{\"id\":8},{\"id\":7}]}\n");
}

// Broken if a server could steer the terminal, or odd types ended the program.
TEST(Cli, OddAnswersAreShownHarmlessly) {
    Terminal t;
    t.script = {{"GET /v1/items/web", R"({"name":"\u001b[2J","state":7,"disks":{},"rpo_s":"x",)"
                                      R"("troubles":[3],"lag_bytes":-5})"}};
    EXPECT_EQ(t.run({"item", "web"}), 0);
    EXPECT_EQ(t.out.str().find('\x1b'), std::string::npos);
    t.script = {{"GET /v1/items/web", "not json"}};
    EXPECT_EQ(t.run({"item", "web"}), 65);
}

TEST(Format, Numbers) {
    EXPECT_EQ(human_bytes(0), "0 B");
    EXPECT_EQ(human_bytes(1023), "1023 B");
    EXPECT_EQ(human_bytes(1024), "1.0 KiB");
    EXPECT_EQ(human_bytes(10 * 1024 * 1024), "10 MiB");
    EXPECT_EQ(human_bytes(UINT64_MAX), "16 EiB");
    EXPECT_EQ(human_seconds(-1), "0 s");
    EXPECT_EQ(human_seconds(9.94), "9.9 s");
    EXPECT_EQ(human_seconds(59.6), "1 min 0 s");
    EXPECT_EQ(human_seconds(7'500), "2 h 5 min");
    EXPECT_EQ(human_count(1234567), "1 234 567");
    EXPECT_EQ(progress_line(2, 0, "x", 200).substr(0, 26), "[########################]");
    EXPECT_EQ(progress_line(0.5, 0, "äöü", 35), "[############------------]  50 %  ä");
}

// Broken if a policy could not be changed at the command line, or what it was were not told.
TEST(Cli, SetShowsOldAndNew) {
    Terminal t;
    const auto policy = [](const char* bandwidth, int verify) {
        return fmt::format(
            R"({{"name":"web","policy":{{"bandwidth":"{}","verify_interval_s":{},"window_s":60}}}})",
            bandwidth, verify);
    };
    const auto script = [&] {
        t.script = {
            {"GET /v1/items/web", policy("", 0)},
            {R"(PATCH /v1/items/web {"policy":{"bandwidth":"1MB/s","verify_interval_s":604800}})",
             policy("1MB/s", 604800)}};
    };
    script();
    EXPECT_EQ(t.run({"set", "web", "--bandwidth", "1MB/s", "--verify-interval", "7d"}), 0);
    EXPECT_EQ(t.out.str(),
              "POLICY             OLD      NEW\n"
              "bandwidth          -    ->  1MB/s\n"
              "verify_interval_s  0    ->  604800\n");
    script();
    EXPECT_EQ(t.run({"set", "web", "--bandwidth", "1MB/s", "--verify-interval", "7d", "--json"}),
              0);
    EXPECT_EQ(
        t.out.str(),
        R"({"changed":{"bandwidth":{"new":"1MB/s","old":""},"verify_interval_s":{"new":604800,)"
        R"("old":0}},"item":"web","policy":{"bandwidth":"1MB/s","verify_interval_s":604800,)"
        "\"window_s\":60}}\n");
    EXPECT_EQ(t.run({"set", "web"}), 64);
    EXPECT_NE(t.err.str().find("nothing to set"), std::string::npos);
    EXPECT_EQ(t.run({"set", "web", "--resync-windows-for", "some"}), 64);
    // Every field that the API has.
    t.script = {
        {"GET /v1/items/web", "{}"},
        {R"(PATCH /v1/items/web {"policy":{"bandwidth":"","consistent_interval_s":0,)"
         R"("copy_throttle_bytes_per_s":5,"crash_point_interval_s":60,"grace_s":1,)"
         R"("resync_windows":"20:00-06:00","resync_windows_for":"all","rpo_threshold_s":30,)"
         R"("verify_interval_s":0,"window_s":7200}})",
         "{}"}};
    EXPECT_EQ(t.run({"set",
                     "web",
                     "--bandwidth",
                     "",
                     "--consistent-interval",
                     "0",
                     "--throttle",
                     "5",
                     "--point-interval",
                     "1min",
                     "--grace",
                     "1",
                     "--resync-windows",
                     "20:00-06:00",
                     "--resync-windows-for",
                     "all",
                     "--rpo-threshold",
                     "30",
                     "--verify-interval",
                     "0",
                     "--window",
                     "2h"}),
              0);
}

// Broken if an agent that is being started, and has not looked yet, were taken for the end.
TEST(Cli, ResyncWaitsForTheVaultsWordThatItIsOver) {
    Terminal t;
    t.script = {{"POST /v1/items/web/resynchronise", "{}"},
                {"GET /v1/items/web", R"({"state":"protected","resync":{"state":"none"},)"
                                      R"("resync_plan":{"stage":"running"}})"},
                {"GET /v1/items/web", R"({"state":"protected","resync":{"state":"done",)"
                                      R"("compared_bytes":7},"resync_plan":{"stage":"none"}})"}};
    EXPECT_EQ(t.run({"resync", "web"}), 0);
    EXPECT_EQ(t.out.str(), "7 bytes compared, 0 differed, 0 sent.\n");
}

// Broken if a comparison that waits were waited for, or could not be cancelled.
TEST(Cli, ResyncInAWindowAndCancelled) {
    Terminal t;
    const char* waits = R"({"name":"web","resync_plan":{"stage":"waiting","kind":"in-window",)"
                        R"("window_opens":"2026-01-05T20:00:00.000000Z"},"policy":{}})";
    t.script = {{R"(POST /v1/items/web/resynchronise {"when":"in-window"})", waits}};
    EXPECT_EQ(t.run({"resync", "web", "--in-window"}), 0);
    EXPECT_NE(t.out.str().find("opens 2026-01-05 20:00:00"), std::string::npos) << t.out.str();
    t.script = {{"GET /v1/items/web", waits}};
    EXPECT_EQ(t.run({"item", "web"}), 0);
    EXPECT_NE(t.out.str().find("waits (in-window), its window opens 2026-01-05 20:00"),
              std::string::npos)
        << t.out.str();
    t.script = {{"POST /v1/items/web/resynchronise/cancel", waits}};
    EXPECT_EQ(t.run({"resync", "web", "--cancel"}), 0);
    t.script = {{"POST /v1/items/web/resynchronise/cancel",
                 fail(Code::kWrongState, "the item needs it", "wait")}};
    EXPECT_EQ(t.run({"resync", "web", "--cancel"}), 75);
    EXPECT_EQ(t.run({"resync", "web", "--cancel", "--in-window"}), 64);
}

// Broken if a login were kept where another server's is, went on after a logout, or lost to the
// administrator's token; or a password were shown.
TEST(Cli, ALoginIsKeptForItsServer) {
    Terminal t;
    t.variables["HOME"] = "/homes/alice";
    t.variables["USER"] = "alice";
    t.script = {{R"(POST /v1/login {"password":"typed secret","user":"alice"})",
                 std::string(R"({"token":"fs_1_2","id":"1","user":"alice","role":"reader",)"
                             R"("expires":"2026-01-31T08:00:00.000000Z"})")}};
    EXPECT_EQ(t.run({"login"}), 0) << t.err.str();
    EXPECT_EQ(t.out.str(),
              "Logged in as alice, reader of all items, until 2026-01-31 08:00:00.000 UTC.\n");
    EXPECT_EQ(t.asked, std::vector<std::string>{"Password of alice at https://127.0.0.1:8443: "});
    EXPECT_EQ(t.connected.token_file, "") << "a login shows nothing";
    const std::string kept = "/homes/alice/.config/farshore/login-127.0.0.1:8443";
    EXPECT_EQ(t.files[kept], "fs_1_2\n");
    const auto used = [&](std::vector<const char*> words) {
        t.script = {{"GET /v1/me", std::string(R"({"name":"n","kind":"user","role":"reader"})")}};
        EXPECT_EQ(t.run(std::move(words)), 0);
        return t.connected.token_file;
    };
    EXPECT_EQ(used({"whoami"}), kept);
    EXPECT_EQ(used({"whoami", "--token-file", "/other"}), "/other");
    EXPECT_EQ(used({"whoami", "--server", "https://elsewhere:8443"}), "/data/t");
    t.script = {{"POST /v1/logout", std::string()}};
    EXPECT_EQ(t.run({"logout"}), 0);
    EXPECT_EQ(used({"whoami"}), "/data/t") << "the administrator's again";
    EXPECT_EQ(t.run({"logout"}), code_exit_status(Code::kWrongState));
    // One that has ended is forgotten all the same.
    t.files[kept] = "fs_1_2";
    t.script = {{"POST /v1/logout", fail(Code::kUnauthenticated, "expired")}};
    EXPECT_EQ(t.run({"logout"}), 0);
    EXPECT_FALSE(t.files.contains(kept));
}

// Broken if what users may is sent or shown wrongly.
TEST(Cli, UsersHaveRolesAndItems) {
    Terminal t;
    const std::string user =
        R"({"name":"bob","role":"operator","items":["db","web"],"disabled":false,"failed_logins":0,)"
        R"("created":"2026-01-31T08:00:00.000000Z"})";
    t.files["/here/pw"] = "a long password\r\n";
    t.script = {
        {R"(POST /v1/users {"items":["web","db"],"name":"bob","password":"a long password",)"
         R"("role":"operator"})",
         user}};
    EXPECT_EQ(t.run({"user", "add", "bob", "--role", "operator", "--item", "web", "--item", "db",
                     "--password-file", "pw"}),
              0)
        << t.err.str();
    EXPECT_EQ(t.out.str(), "bob is operator of db, web items.\n");
    t.script = {{"GET /v1/users?limit=1000", R"({"users":[)" + user + "]}"}};
    EXPECT_EQ(t.run({"user", "list"}), 0);
    EXPECT_EQ(t.out.str(),
              "NAME  ROLE      ITEMS    STATE  LAST LOGIN\n"
              "bob   operator  db, web  good   never\n");
    t.script = {{R"(PATCH /v1/users/bob {"all_items":true,"disabled":true})", user}};
    EXPECT_EQ(t.run({"user", "set", "bob", "--all-items", "--disable"}), 0);
    EXPECT_EQ(t.run({"user", "set", "bob"}), kExitUsage) << "nothing to change";
    EXPECT_EQ(t.run({"user", "set", "bob", "--role", "king"}), kExitUsage);
    t.script = {{R"(POST /v1/access-tokens {"name":"cron","role":"reader","valid_s":3600})",
                 std::string(R"({"token":"fs_1_2","id":"1","role":"reader"})")}};
    EXPECT_EQ(t.run({"access-token", "create", "cron", "--role", "reader", "--valid", "1h"}), 0);
    EXPECT_EQ(t.out.str(), "fs_1_2\n") << "alone on standard output";
    t.script = {
        {"GET /v1/audit?who=bob&outcome=forbidden&limit=100",
         std::string(R"({"audit":[{"id":1,"time":"2026-01-31T08:00:00.000000Z","who":"bob",)"
                     R"("kind":"user","from":"192.0.2.1","method":"GET","path":"/v1/users",)"
                     R"("operation":"GET /v1/users","outcome":"forbidden"}]})")}};
    EXPECT_EQ(t.run({"audit", "--who", "bob", "--outcome", "forbidden"}), 0);
    EXPECT_NE(t.out.str().find("bob  192.0.2.1  GET /v1/users"), std::string::npos) << t.out.str();
}

}  // namespace
}  // namespace farshore
