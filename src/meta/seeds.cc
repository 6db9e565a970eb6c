#include "meta/seeds.h"

#include <fmt/core.h>

#include <array>

#include "meta/items.h"
#include "meta/json_fields.h"
#include "meta/sql.h"

namespace farshore {
namespace {

constexpr std::array<std::string_view, 7> kNames{"none",      "waiting", "importing", "failed",
                                                 "comparing", "held",    "done"};

Result<SeedRecord> read_seed(SqlSession& sql, const ItemId& item) {
    SeedRecord seed;
    Status damaged;
    using L = long long;
    using T = std::string;
    select<T, T, T, T, T, L, L>(
        sql,
        "SELECT sources, state, error_code, error_what, error_remedy, sampled_bytes, "
        "differing_bytes FROM seeds WHERE item_id = :i",
        [&](const T& sources, const T& state, const T& code, const T& what, const T& remedy,
            L sampled, L differing) {
            const Json list = Json::parse(sources, nullptr, false);
            if (list.is_array())
                for (const Json& one : list)
                    if (one.is_string()) seed.sources.push_back(one.get<std::string>());
            const auto name = std::ranges::find(kNames, state);
            if (name == kNames.end())
                damaged = fail(Code::kMalformed, fmt::format("'{}' is no state of a seed", state));
            else
                seed.state = static_cast<SeedState>(name - kNames.begin());
            if (!code.empty()) seed.error = ItemError{code_from_name(code), what, remedy};
            seed.sampled_bytes = from_column(sampled);
            seed.differing_bytes = from_column(differing);
        },
        item);
    FS_TRY(damaged);
    return seed;
}

}  // namespace

std::string_view seed_state_name(SeedState state) { return kNames.at(static_cast<size_t>(state)); }

Result<SeedRecord> get_seed(Database& database, const ItemId& item) {
    return in_snapshot(database, "reading a seed",
                       [&](SqlSession& sql) { return read_seed(sql, item); });
}

Result<SeedRecord> change_seed(Database& database, const ItemId& item,
                               const std::function<Status(SeedRecord&)>& change) {
    return in_transaction(database, "changing a seed", [&](SqlSession& sql) -> Result<SeedRecord> {
        FS_ASSIGN(SeedRecord seed, read_seed(sql, item));
        FS_TRY(change(seed));
        const ItemError error = seed.error.value_or(ItemError{});
        upsert(sql, "seeds", "item_id",
               "sources, state, error_code, error_what, error_remedy, sampled_bytes, "
               "differing_bytes",
               item, dump_json(Json(seed.sources)), seed_state_name(seed.state),
               seed.error ? code_name(error.code) : std::string_view{}, error.what, error.remedy,
               seed.sampled_bytes, seed.differing_bytes);
        return seed;
    });
}

}  // namespace farshore
