// Who may do what: the one table of the API's operations with the least role of each, and whom a
// request comes from. Pure; docs/operations/access.md shows the table to people, and a test holds
// it against api/openapi.yaml.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "meta/people.h"

namespace farshore {

enum class IdentityKind : uint8_t { kNobody, kAdministrator, kUser, kToken, kParty };
std::string_view identity_kind_name(IdentityKind kind);  // "nobody", "administrator", ...

// Whom a request comes from.
struct Identity {
    IdentityKind kind = IdentityKind::kNobody;
    std::string name;      // of the user, also behind a token; of the party
    std::string token_id;  // of what was shown; empty: the administrator's, or none
    Role role = Role::kReader;
    Scope scope;  // as it is written
    // When sites are in it, or in its owner's: with the items of these, which all of them must
    // have.
    std::vector<Scope> within;
    TimePoint expires;  // of the token; 0: never

    bool may_see(const std::string& item_name, const std::string& item_id) const {
        if (within.empty()) return scope.has(item_name, item_id);
        for (const Scope& one : within)
            if (!one.has(item_name, item_id)) return false;
        return true;
    }
};

// What an operation reaches, and so what a scope means for it.
enum class Reach : uint8_t {
    kOpen,   // needs no identity
    kSelf,   // the caller's own: any role, any scope
    kRows,   // of many items: those out of scope are left out
    kItem,   // the item in its path, which is not there when it is out of scope
    kRow,    // of one item that its handler finds out: the same
    kVault,  // the whole vault: for those whose scope is all items
};

struct Operation {
    std::string_view method;
    std::string_view path;  // as in api/openapi.yaml
    Reach reach = Reach::kVault;
    Role least = Role::kOwner;  // of kOpen without meaning

    std::string text() const;  // "GET /v1/items/{item}"
};

// Every operation that there is. What is not here is not done.
std::span<const Operation> operations();

struct FoundOperation {
    const Operation* operation = nullptr;
    std::string item;  // what stands in the place of {item}; empty: its path has none
};
// `parts`: the path between its slashes, percent-decoded. None: there is no such operation.
std::optional<FoundOperation> find_operation(std::string_view method,
                                             const std::vector<std::string>& parts);

// kForbidden, with the role or scope that it needs.
Status check_role(const Identity& identity, const Operation& operation);

// Rights that both have: a token's are never more than those of its owner are now.
Role lesser(Role a, Role b);
Scope intersection(const Scope& a, const Scope& b);

// "fs_<id>_<secret>".
struct TokenText {
    std::string id, secret;
};
inline constexpr size_t kTokenIdBytes = 8;       // 16 hexadecimal digits
inline constexpr size_t kTokenSecretBytes = 32;  // 64
// None: it does not look like one.
std::optional<TokenText> parse_token(std::string_view text);
std::string format_token(const TokenText& token);

}  // namespace farshore
