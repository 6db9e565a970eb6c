#include "meta/returns.h"

#include "meta/json_fields.h"
#include "meta/sql.h"

namespace farshore {
namespace {

constexpr size_t kMaxDocumentBytes = 1u << 20;
constexpr size_t kWord = 256;

Json encode(const ReturnRecord& record) {
    Json disks = Json::array();
    for (const DesiredDisk& disk : record.disks)
        disks.push_back({{"index", disk.index},
                         {"path", disk.path},
                         {"size_bytes", disk.size_bytes},
                         {"removed", disk.removed}});
    return {{"id", record.id},
            {"recovery", record.recovery},
            {"agent", record.agent},
            {"mode", std::string(capture_mode_name(record.mode))},
            {"qmp_socket", record.qmp_socket},
            {"disks", std::move(disks)},
            {"appliance", record.appliance},
            {"original", record.original},
            {"accept", record.accept},
            {"after", record.after.v},
            {"to", record.to.v},
            {"to_time_us", record.to_time.us},
            {"chosen_us", record.chosen.us},
            {"lease", record.lease},
            {"base", record.base.v},
            {"base_lease", record.base_lease},
            {"final", record.final},
            {"begun_us", record.begun.us}};
}

Result<ReturnRecord> decode(const ItemId& item, const std::string& document) {
    FS_ASSIGN(const Json json, parse_json(document, "a way home", kMaxDocumentBytes));
    FS_ASSIGN(const JsonFields fields, JsonFields::of(json, "return"));
    ReturnRecord record;
    record.item = item;
    FS_ASSIGN(record.id, fields.text("id", kWord));
    FS_ASSIGN(record.recovery, fields.text("recovery", kWord));
    FS_ASSIGN(record.agent, fields.text("agent", kWord));
    FS_ASSIGN(const std::string mode, fields.text("mode", kWord));
    FS_ASSIGN(record.mode, capture_mode_from_name(mode));
    FS_ASSIGN(record.qmp_socket, fields.text("qmp_socket", kMaxPathBytes));
    FS_ASSIGN(const Json* disks, fields.array("disks", kMaxDisks));
    for (size_t i = 0; disks != nullptr && i < disks->size(); ++i) {
        FS_ASSIGN(const JsonFields one, JsonFields::of((*disks)[i], "return.disks"));
        DesiredDisk disk;
        FS_ASSIGN(const uint64_t index, one.u64("index", 0, kMaxDisks - 1));
        disk.index = static_cast<DiskIndex>(index);
        FS_ASSIGN(disk.path, one.text("path", kMaxPathBytes));
        FS_ASSIGN(disk.size_bytes, one.u64("size_bytes"));
        FS_ASSIGN(disk.removed, one.boolean("removed"));
        record.disks.push_back(std::move(disk));
    }
    FS_ASSIGN(record.appliance, fields.text("appliance", kWord));
    FS_ASSIGN(record.original, fields.boolean("original", true));
    FS_ASSIGN(record.accept, fields.boolean("accept"));
    FS_ASSIGN(record.after.v, fields.u64("after"));
    FS_ASSIGN(record.to.v, fields.u64("to"));
    FS_ASSIGN(record.to_time.us, fields.i64("to_time_us"));
    FS_ASSIGN(record.chosen.us, fields.i64("chosen_us"));
    FS_ASSIGN(record.lease, fields.u64("lease"));
    FS_ASSIGN(record.base.v, fields.u64("base"));
    FS_ASSIGN(record.base_lease, fields.u64("base_lease"));
    FS_ASSIGN(record.final, fields.boolean("final"));
    FS_ASSIGN(record.begun.us, fields.i64("begun_us"));
    return record;
}

}  // namespace

Result<std::optional<ReturnRecord>> get_return(Database& database, const ItemId& item) {
    return in_snapshot(database, "reading a way home",
                       [&](SqlSession& sql) -> Result<std::optional<ReturnRecord>> {
                           std::optional<std::string> document;
                           select<std::string>(
                               sql, "SELECT document FROM returns WHERE item_id = :i",
                               [&](const std::string& text) { document = text; }, item);
                           if (!document) return std::optional<ReturnRecord>();
                           FS_ASSIGN(ReturnRecord record, decode(item, *document));
                           return std::optional<ReturnRecord>(std::move(record));
                       });
}

Result<std::vector<ReturnRecord>> list_returns(Database& database) {
    return in_snapshot(database, "listing ways home",
                       [&](SqlSession& sql) -> Result<std::vector<ReturnRecord>> {
                           std::vector<std::pair<std::string, std::string>> rows;
                           select<std::string, std::string>(
                               sql, "SELECT item_id, document FROM returns ORDER BY item_id",
                               [&](const std::string& item, const std::string& document) {
                                   rows.emplace_back(item, document);
                               });
                           std::vector<ReturnRecord> records;
                           for (const auto& [item, document] : rows) {
                               FS_ASSIGN(const ItemId id, item_id_column(item));
                               FS_ASSIGN(ReturnRecord record, decode(id, document));
                               records.push_back(std::move(record));
                           }
                           return records;
                       });
}

Status put_return(Database& database, const ReturnRecord& record) {
    return in_transaction(database, "a way home", [&](SqlSession& sql) -> Status {
        long long count = 0;
        select<long long>(
            sql, "SELECT count(*) FROM items WHERE id = :i", [&](long long n) { count = n; },
            record.item);
        if (count == 0) return fail(Code::kItemNotFound, "the item is not protected any more");
        upsert(sql, "returns", "item_id", "document", record.item, dump_json(encode(record)));
        return {};
    });
}

Status drop_return(Database& database, const ItemId& item) {
    return in_transaction(database, "the end of a way home", [&](SqlSession& sql) -> Status {
        execute(sql, "DELETE FROM returns WHERE item_id = :i", item);
        return {};
    });
}

}  // namespace farshore
