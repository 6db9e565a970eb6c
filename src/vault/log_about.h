// Whose event a line of the log is, from our records. For .cc files of this folder.
#pragma once

#include "base/error.h"
#include "meta/records.h"
#include "os/log.h"

namespace farshore {

inline log::About about(const Error& error) { return {.code = code_name(error.code())}; }

inline log::About about(const ItemRecord& item) {
    return {.item = item.name, .item_id = item.id.to_string()};
}
inline log::About about(const ItemRecord& item, const Error& error) {
    log::About about = farshore::about(item);
    about.code = code_name(error.code());
    return about;
}

inline log::About about(const JobRecord& job) {
    return {.item = job.item_name,
            .item_id = job.item ? job.item->to_string() : std::string(),
            .job = job.id};
}
inline log::About about(const JobRecord& job, const Error& error) {
    log::About about = farshore::about(job);
    about.code = code_name(error.code());
    return about;
}

}  // namespace farshore
