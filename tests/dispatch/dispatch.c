/* SPDX-License-Identifier: Apache-2.0 */
/* Which features the library sees, what takes them away, and which kernels that leaves: for
 * simulated processors, operating systems and environments. */
#include "dispatch.h"

#include <stdlib.h>

int main(void) {
    Suite *suite = suite_create("dispatch");
    SRunner *runner = srunner_create(suite);
    int failed;

    suite_add_tcase(suite, features_case());
    suite_add_tcase(suite, override_case());
    suite_add_tcase(suite, bind_case());
    suite_add_tcase(suite, context_case());
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
