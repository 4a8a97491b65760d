/* Asks the library as it was installed; prints the answer. */
#include <moecast.h>
#include <stdio.h>

int main(void) {
  moecast_predictor* predictor = NULL;
  char* answer = NULL;
  if (moecast_open("h200-sxm", NULL, &predictor) != MOECAST_OK ||
      moecast_predict(predictor, "{\"architecture\": \"olmoe-1b-7b\"}", &answer) != MOECAST_OK) {
    fprintf(stderr, "%s\n", moecast_last_error());
    return 1;
  }
  fputs(answer, stdout);
  moecast_free(answer);
  moecast_close(predictor);
  return 0;
}
