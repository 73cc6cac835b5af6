package org.deixis.bench;

/**
 * How long to measure.
 *
 * @param rounds medians are of so many rounds of each contender
 * @param warmSeconds each contender runs so long before it is timed
 * @param roundSeconds a round repeats the work until it lasts about so long
 */
public record Effort(int rounds, double warmSeconds, double roundSeconds) {
  public Effort {
    if (rounds < 1 || !(warmSeconds >= 0) || !(roundSeconds >= 0)) {
      throw new IllegalArgumentException("at least one round, and no negative time");
    }
  }

  /** The whole table in under five minutes. */
  public static final Effort QUICK = new Effort(7, 1.0, 0.015);

  public static final Effort FULL = new Effort(25, 1.0, 0.05);

  /** The same with other rounds, for work that takes seconds. */
  public Effort withRounds(int other) {
    return new Effort(other, warmSeconds, roundSeconds);
  }

  public Effort withWarming(double seconds) {
    return new Effort(rounds, seconds, roundSeconds);
  }
}
