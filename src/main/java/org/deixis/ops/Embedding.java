package org.deixis.ops;

import org.deixis.autograd.Tape;
import org.deixis.autograd.Variable;
import org.deixis.backend.Array;
import org.deixis.backend.Backend;
import org.deixis.core.DType;

/**
 * Rows of a table (V, C) by I32 ids (…): result (…, C). Ids must lie in [0, V); callers check them
 * on the host.
 */
public final class Embedding {
  public static final String NAME = "embedding";

  private Embedding() {}

  public static Variable apply(Variable ids, Variable table) {
    return apply(ids, table, -1);
  }

  /**
   * @param padding the row without gradient, or −1
   */
  public static Variable apply(Variable ids, Variable table, int padding) {
    Backend k = Check.floating(NAME, table);
    Check.that(
        ids.dtype() == DType.I32 && table.shape().rank() == 2 && padding < table.shape().dim(0),
        NAME,
        "ids must be I32, the table (V, C) and the padding row " + padding + " inside it",
        ids,
        table);
    Array y = Check.make(table, ids.shape().append(table.shape().dim(1)));
    k.embedding(ids.array(), table.array(), y);
    return Tape.record(
        NAME,
        Check.inputs(ids, table),
        y,
        Check.saved(ids.array()),
        c -> {
          if (c.needs(1)) {
            Array dTable = Check.like(table);
            k.embeddingBackward(c.saved(0), c.gradient(0), dTable);
            if (padding >= 0) {
              k.fill(dTable.slice(padding, padding + 1), 0);
            }
            c.give(1, dTable);
          }
        });
  }
}
