package org.deixis.autograd;

import org.deixis.backend.Array;

/** One recorded operation: what it read, what it made, and how gradients pass back through it. */
final class Node {
  final String name;
  final Variable[] inputs;
  final Variable[] outputs;
  final Array[] saved;
  final Backward backward;
  private boolean released;

  Node(String name, Variable[] inputs, Variable[] outputs, Array[] saved, Backward backward) {
    this.name = name;
    this.inputs = inputs;
    this.outputs = outputs;
    this.saved = saved;
    this.backward = backward;
    for (Array a : saved) {
      if (a != null) {
        a.retain();
      }
    }
  }

  /** Gives up the saved values and the gradients of the outputs. */
  void release() {
    if (released) {
      return;
    }
    released = true;
    for (Array a : saved) {
      if (a != null) {
        a.release();
      }
    }
    for (Variable output : outputs) {
      output.clearGradient();
    }
  }
}
