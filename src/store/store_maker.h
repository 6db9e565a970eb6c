// What store_contract.h tests: makers of stores. Apart from the tests themselves, so that test
// files of remote stores can add theirs to the one program that has the contract.
#pragma once

#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "store/object_store.h"

namespace farshore {

// A store and whatever must live as long as it does.
struct StoreHolder {
    virtual ~StoreHolder() = default;
    virtual ObjectStore& store() = 0;
};

struct StoreMaker {
    std::string name;
    std::function<std::unique_ptr<StoreHolder>()> make;
    bool threads = true;  // the simulated store takes one thread only
    friend void PrintTo(const StoreMaker& maker, std::ostream* out) { *out << maker.name; }
};

// Stores of servers that the environment names; each test file of such a store adds to it before
// main().
inline std::vector<StoreMaker>& remote_store_makers() {
    static std::vector<StoreMaker> makers;
    return makers;
}
inline bool add_remote_store_makers(const std::vector<StoreMaker>& more) {
    auto& makers = remote_store_makers();
    makers.insert(makers.end(), more.begin(), more.end());
    return !more.empty();
}

}  // namespace farshore
