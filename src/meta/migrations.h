// The schema's history. A migration that was released is never edited: its hash is in every
// database.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace farshore {

struct Migration {
    int version;  // 1, 2, 3, ...
    std::string_view name;
    std::string_view sql;  // statements that end in ';'
};

std::span<const Migration> migrations();

// FNV-1a, 64 bits: told apart, not authenticated.
constexpr uint64_t migration_hash(std::string_view sql) {
    uint64_t hash = 0xcbf29ce484222325u;
    for (char c : sql) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3u;
    return hash;
}

}  // namespace farshore
