#include "meta/people.h"

#include <gtest/gtest.h>

#include "meta/test_database.h"

namespace farshore {
namespace {

UserRecord user(const std::string& name, Role role = Role::kReader) {
    UserRecord record;
    record.name = name;
    record.password_hash = "hash";
    record.role = role;
    return record;
}

AccessTokenRecord token(const std::string& id, const std::string& owner, TimePoint expires) {
    AccessTokenRecord record;
    record.id = id;
    record.name = "t";
    record.owner = owner;
    record.hash[0] = 7;
    record.expires = expires;
    return record;
}

// Broken if a user were forgotten with a restart, or two had one name, or what was changed were
// something else.
TEST(People, UsersAreKept) {
    TestDatabase test;
    UserRecord alice = user("alice", Role::kOperator);
    alice.scope = *scope_of_items({"web", "db", "web"});
    ASSERT_TRUE(add_user(*test.database, alice));
    EXPECT_EQ(add_user(*test.database, alice).error().code(), Code::kAlreadyExists);
    UserChange change;
    change.disabled = true;
    ASSERT_TRUE(change_user(*test.database, "alice", change));
    ASSERT_TRUE(login_failed(*test.database, "alice", 3, {77}));
    ASSERT_TRUE(login_failed(*test.database, "alice", 2, {55})) << "an older one comes late";
    test.reopen();
    const auto kept = get_user(*test.database, "alice");
    ASSERT_TRUE(kept);
    EXPECT_EQ(kept->role, Role::kOperator);
    EXPECT_EQ(kept->scope.items, (std::vector<std::string>{"db", "web"}));
    EXPECT_FALSE(kept->scope.all);
    EXPECT_TRUE(kept->disabled);
    EXPECT_EQ(kept->failed_logins, 3u);
    EXPECT_EQ(kept->locked_until.us, 77);
    ASSERT_TRUE(login_succeeded(*test.database, "alice"));
    EXPECT_EQ(get_user(*test.database, "alice")->failed_logins, 0u);
    EXPECT_NE(get_user(*test.database, "alice")->last_login.us, 0);
    for (const char* bad : {"", "A", "a b", "12", "x/y", "administrator", "nobody"})
        EXPECT_FALSE(check_user_name(bad)) << bad;
    EXPECT_TRUE(check_user_name("a.b-c_d@example.org"));
    EXPECT_EQ(get_user(*test.database, "bob").error().code(), Code::kNotFound);
    EXPECT_EQ(change_user(*test.database, "bob", change).error().code(), Code::kNotFound);
    EXPECT_EQ(set_password(*test.database, "bob", "h").error().code(), Code::kNotFound);
    EXPECT_EQ(remove_user(*test.database, "bob").error().code(), Code::kNotFound);
    EXPECT_EQ(remove_user(*test.database, "").error().code(), Code::kNotFound);
}

// Broken if a provider could take over somebody with a password, or a role that it has taken away
// stayed, or an owner's word about somebody did not.
TEST(People, ProvidedUsersAreTheirOwn) {
    TestDatabase test;
    ASSERT_TRUE(add_user(*test.database, user("alice", Role::kOwner)));
    EXPECT_EQ(keep_provided_user(*test.database, "alice", Role::kOwner).error().code(),
              Code::kForbidden);
    ASSERT_TRUE(keep_provided_user(*test.database, "bob", Role::kOwner));
    UserChange change;
    change.disabled = true;
    change.scope = *scope_of_items({"web"});
    ASSERT_TRUE(change_user(*test.database, "bob", change));
    const auto bob = keep_provided_user(*test.database, "bob", Role::kReader);
    ASSERT_TRUE(bob);
    EXPECT_EQ(bob->role, Role::kReader);
    EXPECT_TRUE(bob->disabled);
    EXPECT_FALSE(bob->scope.all);
    EXPECT_EQ(bob->password_hash, kProvidedUser);
}

// Broken if a scope let somebody at more than what it names.
TEST(People, ScopesNameItems) {
    const Scope all;
    const Scope some = *scope_of_items({"web", "db"});
    const Scope one = *scope_of_items({"web"});
    EXPECT_TRUE(all.has("anything", "id"));
    EXPECT_TRUE(some.has("web", "id"));
    EXPECT_TRUE(some.has("x", "db"));
    EXPECT_FALSE(one.has("db", "id"));
    EXPECT_TRUE(one.within(some));
    EXPECT_TRUE(some.within(all));
    EXPECT_FALSE(some.within(one));
    EXPECT_FALSE(all.within(some));
    EXPECT_FALSE(scope_of_items({}));
    EXPECT_FALSE(scope_of_items({"a\nb"}));
    EXPECT_FALSE(scope_of_items(std::vector<std::string>(kMaxScopeItems + 1, "x")));
}

// Broken if a token outlived its owner, its revocation or its time, or a new password left old
// sessions alive.
TEST(People, TokensEnd) {
    TestDatabase test;
    const TimePoint later{test.clock.time.us + 1000};
    ASSERT_TRUE(add_user(*test.database, user("alice")));
    EXPECT_EQ(add_access_token(*test.database, token("00", "bob", later)).error().code(),
              Code::kNotFound);
    ASSERT_TRUE(add_access_token(*test.database, token("01", "alice", later)));
    EXPECT_FALSE(add_access_token(*test.database, token("01", "alice", later)));
    AccessTokenRecord session = token("02", "alice", later);
    session.session = true;
    ASSERT_TRUE(add_access_token(*test.database, session));
    ASSERT_TRUE(add_access_token(*test.database, token("03", "", later)));
    EXPECT_EQ(list_access_tokens(*test.database, {}, "", 10)->size(), 3u);
    EXPECT_EQ(list_access_tokens(*test.database, std::string("alice"), "01", 10)->size(), 1u);
    auto found = get_access_token(*test.database, "01");
    ASSERT_TRUE(found);
    EXPECT_EQ(found->owner->name, "alice");
    EXPECT_EQ(found->token.hash[0], 7);
    EXPECT_TRUE(found->token.is_good(test.clock.time));
    EXPECT_FALSE(found->token.is_good(later));
    ASSERT_TRUE(set_password(*test.database, "alice", "new"));
    EXPECT_NE(get_access_token(*test.database, "02")->token.revoked.us, 0);
    EXPECT_EQ(get_access_token(*test.database, "01")->token.revoked.us, 0);
    ASSERT_TRUE(revoke_access_token(*test.database, "01"));
    EXPECT_FALSE(get_access_token(*test.database, "01")->token.is_good(test.clock.time));
    EXPECT_EQ(revoke_access_token(*test.database, "09").error().code(), Code::kNotFound);
    ASSERT_TRUE(remove_user(*test.database, "alice"));
    EXPECT_FALSE(get_access_token(*test.database, "01"));
    EXPECT_TRUE(get_access_token(*test.database, "03")) << "the administrator's";
    test.clock.time.us = later.us + kEndedTokenKeptUs + 1;
    ASSERT_TRUE(add_access_token(*test.database, token("04", "", {test.clock.time.us + 1})));
    EXPECT_EQ(list_access_tokens(*test.database, {}, "", 10)->size(), 1u) << "the old one is gone";
}

// Broken if the audit lost who did what, showed a page twice, or a flood by nobody pushed out what
// somebody did.
TEST(People, TheAuditIsKept) {
    TestDatabase test;
    AuditRecord row;
    row.who = "alice";
    row.kind = "user";
    row.source = "192.0.2.1";
    row.method = "POST";
    row.path = "/v1/items/web/scrub";
    row.operation = "POST /v1/items/{item}/scrub";
    row.item = "web";
    row.outcome = "ok";
    ASSERT_TRUE(add_audit(*test.database, row));
    AuditRecord nobody;
    nobody.known = false;
    nobody.outcome = "unauthenticated";
    for (size_t i = 0; i < 600; ++i) ASSERT_TRUE(add_audit(*test.database, nobody));
    row.outcome = "forbidden";
    row.item = "db";
    ASSERT_TRUE(add_audit(*test.database, row));
    test.reopen();
    AuditQuery query;
    query.who = "alice";
    auto rows = list_audit(*test.database, query);
    ASSERT_TRUE(rows);
    ASSERT_EQ(rows->size(), 2u);
    EXPECT_EQ(rows->front().item, "db");
    EXPECT_EQ(rows->back().operation, row.operation);
    EXPECT_EQ(rows->back().source, row.source);
    query.before = rows->front().id;
    query.item = "web";
    EXPECT_EQ(list_audit(*test.database, query)->size(), 1u);
    query = {};
    query.outcome = "unauthenticated";
    query.limit = 1000;
    EXPECT_EQ(list_audit(*test.database, query)->size(), 600u);
}

}  // namespace
}  // namespace farshore
