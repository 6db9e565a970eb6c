#include "store/object_store.h"

#include <fmt/core.h>

#include <algorithm>

namespace farshore {

Status put_idempotent(ObjectStore& store, const std::string& name, ByteView data) {
    Status put = store.put(name, data);
    if (put || put.error().code() != Code::kAlreadyExists) return put;
    FS_ASSIGN(Bytes existing, store.get(name));
    if (std::ranges::equal(existing, data)) return {};
    return put;
}

std::string_view finding_result_name(StoreFinding::Result result) {
    switch (result) {
        case StoreFinding::Result::kOk:
            return "ok";
        case StoreFinding::Result::kNote:
            return "note";
        case StoreFinding::Result::kWarning:
            return "warning";
        case StoreFinding::Result::kRefused:
            break;
    }
    return "refused";
}

Status ObjectStore::extend_lock(const std::string& name, TimePoint) {
    return fail(Code::kUnsupported, fmt::format("object '{}' is in a store without locks", name));
}

}  // namespace farshore
