#include "sim/predictor.h"
