#include "vault/access.h"

#include <gtest/gtest.h>

#include <fstream>
#include <set>

#include "os/test_paths.h"
#include "vault/login_throttle.h"

namespace farshore {
namespace {

std::set<std::string> described() {
    std::ifstream file(test_source_directory() + "/api/openapi.yaml");
    std::set<std::string> out;
    std::string line, path;
    bool in_paths = false;
    while (std::getline(file, line)) {
        if (line == "paths:") in_paths = true;
        if (line == "components:") in_paths = false;
        if (!in_paths) continue;
        if (line.starts_with("  /")) path = line.substr(2, line.size() - 3);
        for (const auto& [word, method] :
             {std::pair("    get:", "GET"), std::pair("    post:", "POST"),
              std::pair("    put:", "PUT"), std::pair("    patch:", "PATCH"),
              std::pair("    delete:", "DELETE")})
            if (line == word) out.insert(std::string(method) + " " + path);
    }
    return out;
}

std::vector<std::string> parts_of(std::string_view path) {
    std::vector<std::string> parts;
    while (!path.empty()) {
        path.remove_prefix(1);
        parts.emplace_back(path.substr(0, path.find('/')));
        path.remove_prefix(parts.back().size());
    }
    return parts;
}

Identity somebody(Role role, bool all = true) {
    Identity who;
    who.kind = IdentityKind::kUser;
    who.role = role;
    if (!all) who.scope = *scope_of_items({"web"});
    return who;
}

// Broken if an operation were described that nobody may use, or one could be used that nobody has
// decided about.
TEST(Access, EveryOperationOfTheDescriptionHasARole) {
    std::set<std::string> known;
    for (const Operation& operation : operations())
        EXPECT_TRUE(known.insert(operation.text()).second) << operation.text() << " twice";
    EXPECT_EQ(known, described());
    EXPECT_GT(known.size(), 60u);
}

// Broken if a request were taken for another operation than it is.
TEST(Access, OperationsAreFound) {
    for (const Operation& operation : operations()) {
        const auto found = find_operation(operation.method, parts_of(operation.path));
        ASSERT_TRUE(found) << operation.text();
        EXPECT_EQ(found->operation, &operation) << operation.text();
    }
    EXPECT_EQ(find_operation("GET", {"v1", "items", "web", "points", "5"})->item, "web");
    EXPECT_EQ(find_operation("GET", {"v1", "jobs", "5"})->item, "");
    for (const auto& [method, path] :
         {std::pair("PUT", "/v1/items"), std::pair("DELETE", "/v1/audit"),
          std::pair("DELETE", "/v1/audit/1"), std::pair("PATCH", "/v1/audit"),
          std::pair("POST", "/v1/audit"), std::pair("GET", "/v1"), std::pair("GET", "/v2/items"),
          std::pair("GET", "/v1/items/web/nothing"), std::pair("GET", "/v1/items/web/points/5/6"),
          std::pair("get", "/v1/items")})
        EXPECT_FALSE(find_operation(method, parts_of(path))) << method << " " << path;
    EXPECT_FALSE(find_operation("GET", {}));
}

// Broken if a role got at what is only for a higher one.
TEST(Access, EachRoleMayWhatTheOnesBeforeItMay) {
    for (const Operation& operation : operations())
        for (const Role role : {Role::kReader, Role::kOperator, Role::kContributor, Role::kOwner}) {
            const auto checked = check_role(somebody(role), operation);
            EXPECT_EQ(checked.has_value(),
                      operation.reach == Reach::kOpen || role >= operation.least)
                << operation.text() << " " << role_name(role);
            if (checked) continue;
            EXPECT_EQ(checked.error().code(), Code::kForbidden);
            EXPECT_NE(checked.error().what().find(role_name(operation.least)), std::string::npos)
                << "names the role that is needed";
        }
    const auto may = [](Role role, const char* method, const char* path) {
        return check_role(somebody(role), *find_operation(method, parts_of(path))->operation)
            .has_value();
    };
    EXPECT_TRUE(may(Role::kReader, "GET", "/v1/items/web/points"));
    EXPECT_FALSE(may(Role::kReader, "POST", "/v1/items/web/failovers"));
    EXPECT_TRUE(may(Role::kOperator, "POST", "/v1/items/web/failovers"));
    EXPECT_FALSE(may(Role::kOperator, "PATCH", "/v1/items/web"));
    EXPECT_FALSE(may(Role::kOperator, "DELETE", "/v1/items/web"));
    EXPECT_TRUE(may(Role::kContributor, "PATCH", "/v1/items/web"));
    for (const char* secret : {"/v1/users", "/v1/audit"})
        EXPECT_FALSE(may(Role::kContributor, "GET", secret)) << secret;
    EXPECT_FALSE(may(Role::kContributor, "POST", "/v1/keys/escrow"));
    EXPECT_TRUE(may(Role::kOwner, "POST", "/v1/keys/escrow"));
}

// Broken if somebody whose role is for some items got at what is of the whole vault.
TEST(Access, AScopeEndsAtItsItems) {
    for (const Operation& operation : operations()) {
        const bool may = check_role(somebody(Role::kOwner, false), operation).has_value();
        EXPECT_EQ(may, operation.reach != Reach::kVault) << operation.text();
        if (operation.path.find("{item}") != std::string_view::npos)
            EXPECT_EQ(operation.reach, Reach::kItem) << operation.text();
    }
    const Scope web = *scope_of_items({"web"}), both = *scope_of_items({"db", "web"});
    EXPECT_EQ(intersection(web, both), web);
    EXPECT_EQ(intersection(both, Scope{}), both);
    EXPECT_EQ(intersection(Scope{}, web), web);
    EXPECT_TRUE(intersection(web, *scope_of_items({"db"})).items.empty());
    EXPECT_FALSE(intersection(web, *scope_of_items({"db"})).all);
    EXPECT_EQ(lesser(Role::kOwner, Role::kOperator), Role::kOperator);
}

// Broken if something were taken for a token that is none.
TEST(Access, TokensHaveOneForm) {
    const TokenText token{std::string(16, 'a'), std::string(64, '0')};
    const std::string text = format_token(token);
    ASSERT_TRUE(parse_token(text));
    EXPECT_EQ(parse_token(text)->id, token.id);
    EXPECT_EQ(parse_token(text)->secret, token.secret);
    for (const std::string& bad :
         {std::string(), std::string("fs_"), text + "0", text.substr(1), "FS" + text.substr(2),
          text.substr(0, text.size() - 1) + "G", text.substr(0, 19) + "-" + text.substr(20)})
        EXPECT_FALSE(parse_token(bad)) << bad;
}

// Broken if somebody could guess without end, or a lock did not end by itself.
TEST(LoginThrottle, WrongPasswordsLock) {
    LoginThrottle throttle;
    int64_t now = 1'000'000'000;
    for (uint32_t i = 1; i < kFreeTriesOfUser; ++i) {
        EXPECT_EQ(throttle.begin("alice", "a", now), i);
        EXPECT_EQ(throttle.wait_us("alice", "a", now), 0) << i;
    }
    throttle.begin("alice", "a", now);
    EXPECT_EQ(throttle.wait_us("alice", "b", now), kFirstLockUs) << "from every address";
    EXPECT_EQ(throttle.wait_us("bob", "a", now), 0) << "another user may";
    now += kFirstLockUs;
    EXPECT_EQ(throttle.wait_us("alice", "a", now), 0);
    throttle.begin("alice", "a", now);
    EXPECT_EQ(throttle.wait_us("alice", "a", now), 2 * kFirstLockUs);
    for (int i = 0; i < 40; ++i) throttle.begin("alice", "c", now);
    EXPECT_EQ(throttle.wait_us("alice", "a", now), kLongestLockUs) << "never longer";
    now += kFailuresKeptUs + kLongestLockUs;
    EXPECT_EQ(throttle.begin("alice", "a", now), 1u) << "forgotten";
    throttle.succeeded("alice", "a");
    EXPECT_EQ(throttle.begin("alice", "a", now), 1u);
}

// Broken if one address could try many users, or a good login in between made up for it.
TEST(LoginThrottle, AddressesLock) {
    LoginThrottle throttle;
    const int64_t now = 1;
    for (uint32_t i = 0; i < kFreeTriesOfAddress; ++i) {
        EXPECT_EQ(throttle.wait_us("x", "a", now), 0);
        throttle.begin("user" + std::to_string(i), "a", now);
        throttle.begin("me", "a", now);
        throttle.succeeded("me", "a");
    }
    EXPECT_GT(throttle.wait_us("x", "a", now), 0);
    EXPECT_EQ(throttle.wait_us("x", "b", now), 0);
}

// Broken if tries at one time were more than tries in a row, or somebody in the way counted.
TEST(LoginThrottle, TriesCountFromTheirBeginning) {
    LoginThrottle throttle;
    for (uint32_t i = 0; i < kFreeTriesOfUser; ++i) throttle.begin("alice", "a", 1);
    EXPECT_GT(throttle.wait_us("alice", "a", 1), 0);
    for (uint32_t i = 0; i < kFreeTriesOfUser; ++i) throttle.undecided("alice", "a");
    EXPECT_EQ(throttle.wait_us("alice", "a", 1), 0);
    EXPECT_EQ(throttle.begin("alice", "a", 1), 1u);
}

// Broken if memory grew with the names that are tried.
TEST(LoginThrottle, IsBounded) {
    LoginThrottle throttle;
    for (uint32_t i = 0; i < kFreeTriesOfUser; ++i) throttle.begin("alice", "a", 5);
    for (size_t i = 0; i < kMaxThrottled - 1; ++i)
        throttle.begin("user" + std::to_string(i), "a", 6);
    EXPECT_GT(throttle.wait_us("alice", "b", 6), 0);
    throttle.begin("one more", "a", 7);
    EXPECT_EQ(throttle.wait_us("alice", "b", 7), 0) << "the oldest went";
}

}  // namespace
}  // namespace farshore
