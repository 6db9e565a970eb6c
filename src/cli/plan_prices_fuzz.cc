// Arbitrary text as a table of prices.
#include "cli/plan_prices.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace farshore;
    const auto prices = parse_prices(as_text({data, size}), "p");
    if (!prices) {
        FS_CHECK(prices.error().what().starts_with("p:"));
        return 0;
    }
    for (const double price : {prices->storage_gb_month, prices->put_1000, prices->get_1000,
                               prices->head_1000, prices->list_1000, prices->egress_gb})
        FS_CHECK(price >= 0 && price <= 1e9);
    return 0;
}
