#include "meta/deleted_items.h"

#include "meta/sql.h"

namespace farshore {
namespace {

using L = long long;
using T = std::string;

}  // namespace

Status put_deleted_item(Database& database, const DeletedItem& deleted) {
    return in_transaction(database, "remembering a deleted item", [&](SqlSession& sql) -> Status {
        const L next = deleted.next_look.us, looks = deleted.looks;
        execute(sql, "DELETE FROM deleted_items WHERE item_id = :i", deleted.item);
        execute(sql,
                "INSERT INTO deleted_items(item_id, next_look_us, looks) "
                "VALUES (:i, :n, :l)",
                deleted.item, next, looks);
        return {};
    });
}

Status drop_deleted_item(Database& database, const ItemId& item) {
    return in_transaction(database, "forgetting a deleted item", [&](SqlSession& sql) -> Status {
        execute(sql, "DELETE FROM deleted_items WHERE item_id = :i", item);
        return {};
    });
}

Result<std::vector<DeletedItem>> deleted_items_due(Database& database, TimePoint now, size_t most) {
    return in_snapshot(
        database, "reading deleted items",
        [&](SqlSession& sql) -> Result<std::vector<DeletedItem>> {
            std::vector<DeletedItem> due;
            Status damaged;
            const L until = now.us, limit = static_cast<L>(most);
            select<T, L, L>(
                sql,
                "SELECT item_id, next_look_us, looks FROM deleted_items "
                "WHERE next_look_us <= :u ORDER BY next_look_us, item_id LIMIT :m",
                [&](const T& item, L next, L looks) {
                    auto id = item_id_column(item);
                    if (!id) {
                        damaged = tl::unexpected(id.error());
                        return;
                    }
                    due.push_back({*id, {next}, static_cast<uint32_t>(from_column(looks))});
                },
                until, limit);
            FS_TRY(damaged);
            return due;
        });
}

}  // namespace farshore
