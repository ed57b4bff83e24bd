/* SPDX-License-Identifier: Apache-2.0 */
/* Every public function, every argument, every fault that it can have: the exact status, a
 * readable sentence, and not a byte written. */
#include "arguments.h"

#include <stdlib.h>

int main(void) {
    Suite *suite = suite_create("arguments");
    SRunner *runner;
    int failed;

    suite_add_tcase(suite, status_case());
    suite_add_tcase(suite, params_case());
    suite_add_tcase(suite, tensors_case());
    suite_add_tcase(suite, overlap_case());
    suite_add_tcase(suite, run_case_suite());
    suite_add_tcase(suite, backward_case());
    suite_add_tcase(suite, project_case());
    suite_add_tcase(suite, project_backward_case());
    suite_add_tcase(suite, pack_case());
    suite_add_tcase(suite, loss_faults_case());
    suite_add_tcase(suite, descent_faults_case());
    suite_add_tcase(suite, merge_faults_case());
    suite_add_tcase(suite, cache_faults_case());
    suite_add_tcase(suite, cache_file_faults_case());
    suite_add_tcase(suite, append_faults_case());
    suite_add_tcase(suite, decode_faults_case());
    suite_add_tcase(suite, context_faults_case());
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
