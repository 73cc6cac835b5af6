package org.deixis.train;

import org.deixis.core.InputException;

/**
 * Training that cannot go on: the loss is not a number. The message is the diagnosis, in one line.
 */
public final class TrainingFault extends InputException {
  TrainingFault(String message) {
    super(message);
  }
}
