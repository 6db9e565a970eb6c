#include "meta/item_nics.h"

#include "meta/sql.h"

namespace farshore {

using L = long long;
using T = std::string;

Result<std::map<uint32_t, std::string>> item_nics(Database& database, const ItemId& item) {
    return in_transaction(database, "reading what is set for network cards",
                          [&](SqlSession& sql) -> Result<std::map<uint32_t, std::string>> {
                              std::map<uint32_t, std::string> nics;
                              select<L, T>(
                                  sql, "SELECT nic, document FROM item_nics WHERE item_id = :i",
                                  [&](L nic, const T& document) {
                                      nics.emplace(static_cast<uint32_t>(nic), document);
                                  },
                                  item);
                              return nics;
                          });
}

Result<std::vector<std::string>> all_item_nics(Database& database) {
    return in_snapshot(database, "reading what is set for all network cards",
                       [&](SqlSession& sql) -> Result<std::vector<std::string>> {
                           std::vector<std::string> documents;
                           select<T>(sql, "SELECT DISTINCT document FROM item_nics",
                                     [&](const T& document) { documents.push_back(document); });
                           return documents;
                       });
}

Status set_item_nic(Database& database, const ItemId& item, uint32_t nic,
                    const std::string& document) {
    return in_transaction(database, "setting a network card", [&](SqlSession& sql) -> Status {
        L known = 0;
        select<L>(
            sql, "SELECT count(*) FROM items WHERE id = :i", [&](L count) { known = count; }, item);
        if (known == 0) return fail(Code::kItemNotFound, "the item is gone");
        upsert(sql, "item_nics", "item_id, nic", "document", item, uint64_t{nic}, document);
        return {};
    });
}

Status clear_item_nic(Database& database, const ItemId& item, uint32_t nic) {
    return in_transaction(database, "clearing a network card", [&](SqlSession& sql) -> Status {
        execute(sql, "DELETE FROM item_nics WHERE item_id = :i AND nic = :n", item, uint64_t{nic});
        return {};
    });
}

}  // namespace farshore
