package org.deixis.train;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import org.deixis.backend.AdamW;
import org.deixis.core.DType;
import org.deixis.core.InputException;
import org.deixis.core.Reason;
import org.deixis.data.AugmentConfig;
import org.deixis.model.gres.GresLoss;
import org.deixis.model.gres.JsonRecord;
import org.deixis.ops.Losses;
import org.deixis.optim.AdamWOptimizer.LossScaling;
import org.deixis.optim.Schedule;

/**
 * How a model is trained. Written as {@code config.json} into the run folder, and read from a file
 * of the same keys.
 *
 * @param images pictures a micro-batch
 * @param expressions expressions a picture
 * @param accumulate micro-batches a step; their gradients are averaged
 * @param steps optimiser steps of the whole run
 * @param rate peak learning rate
 * @param encoderRateFactor factor on it for the vision and text encoders
 * @param weightDecay decoupled decay of matrices; norms, biases and position tables have none
 * @param beta2 decay of AdamW's mean of squared gradients; a short run from scratch learns sooner
 *     with a shorter memory than the usual 0.999
 * @param schedule cosine, polynomial, multistep or constant
 * @param warmup steps of linear warm-up
 * @param clip largest global gradient norm; 0 does not clip
 * @param precision fp32, fp16 (with dynamic loss scaling) or bf16
 * @param lossScale first loss scale of fp16
 * @param lossScaleGrowth good steps after which it doubles
 * @param diceWeight weight of the Dice loss; 0 leaves it out
 * @param focal focal loss instead of the mask's cross-entropy
 * @param regionWeight weight of the region loss
 * @param hardExamples draw samples by a running mean of their loss; reads each step's losses back
 * @param augment changes to the pictures
 * @param seed of initial weights, order, augmentation and dropout
 * @param logEvery steps between lines of metrics.jsonl
 * @param saveEvery steps between checkpoints; the last step always makes one
 * @param keep how many of the latest checkpoints stay
 * @param evalEvery steps between evaluations on the validation split; 0: at the end alone
 * @param evalExpressions how many expressions such an evaluation takes; 0: all
 * @param calibrate expressions of the training split on which the bias of the no-target head is set
 *     when training is over, so that a half is the balanced threshold; 0 leaves it as trained
 */
public record TrainConfig(
    int images,
    int expressions,
    int accumulate,
    int steps,
    double rate,
    double encoderRateFactor,
    double weightDecay,
    double beta2,
    String schedule,
    int warmup,
    double clip,
    String precision,
    double lossScale,
    int lossScaleGrowth,
    double diceWeight,
    boolean focal,
    double focalAlpha,
    double focalGamma,
    double regionWeight,
    boolean hardExamples,
    AugmentConfig augment,
    long seed,
    int logEvery,
    int saveEvery,
    int keep,
    int evalEvery,
    int evalExpressions,
    int calibrate) {

  /** For training from published encoders: the guide's loss, encoders at a tenth of the rate. */
  public static final TrainConfig DEFAULT =
      new TrainConfig(
          8,
          4,
          1,
          20_000,
          1e-4,
          0.1,
          0.05,
          0.999,
          "polynomial",
          500,
          1,
          "fp32",
          65_536,
          2_000,
          0,
          false,
          0.25,
          2,
          0.5,
          false,
          AugmentConfig.standard(),
          1,
          50,
          1_000,
          3,
          2_000,
          2_000,
          0);

  /** The demo's recipe: everything from scratch on simple scenes. */
  public static final TrainConfig DEMO =
      new TrainConfig(
          12,
          2,
          1,
          2_600,
          1e-3,
          1,
          0.02,
          0.98,
          "cosine",
          100,
          1,
          "fp32",
          65_536,
          2_000,
          1,
          false,
          0.25,
          2,
          0.5,
          false,
          AugmentConfig.none(),
          1,
          25,
          400,
          2,
          0,
          0,
          2_048);

  public TrainConfig {
    atLeast("images", images, 1);
    atLeast("expressions", expressions, 1);
    atLeast("accumulate", accumulate, 1);
    atLeast("steps", steps, 1);
    atLeast("warmup", warmup, 0);
    atLeast("logEvery", logEvery, 1);
    atLeast("saveEvery", saveEvery, 1);
    atLeast("keep", keep, 1);
    atLeast("evalEvery", evalEvery, 0);
    atLeast("evalExpressions", evalExpressions, 0);
    atLeast("calibrate", calibrate, 0);
    atLeast("lossScaleGrowth", lossScaleGrowth, 0);
    for (double v :
        new double[] {
          rate,
          encoderRateFactor,
          weightDecay,
          clip,
          diceWeight,
          focalAlpha,
          focalGamma,
          regionWeight
        }) {
      if (!(v >= 0 && v < 1e6)) {
        throw new InputException(
            "training: rates, weights and limits are numbers from 0 on, not " + v);
      }
    }
    if (!(beta2 >= 0 && beta2 < 1)) {
      throw new InputException("beta2: " + beta2 + " is not from 0 to below 1");
    }
    if (!(lossScale >= 1)) {
      throw new InputException("lossScale: " + lossScale + " is below 1");
    }
    Schedule.of(schedule, steps, warmup);
    type(precision);
  }

  private static void atLeast(String name, long value, long low) {
    if (value < low) {
      throw new InputException(name + ": " + value + " is below " + low);
    }
  }

  /** The type that the forward computes with. */
  public DType type() {
    return type(precision);
  }

  private static DType type(String precision) {
    return switch (precision) {
      case "fp32" -> DType.F32;
      case "fp16" -> DType.F16;
      case "bf16" -> DType.BF16;
      default ->
          throw new InputException(
              "precision: '" + precision + "' is unknown; give fp32, fp16 or bf16");
    };
  }

  /** bf16 has fp32's range and needs no scaling. */
  LossScaling scaling() {
    return type() == DType.F16 ? new LossScaling(lossScale, lossScaleGrowth) : LossScaling.NONE;
  }

  AdamW adamW() {
    return new AdamW(0.9f, (float) beta2, 1e-8f);
  }

  GresLoss loss() {
    return new GresLoss(
        (float) regionWeight,
        (float) diceWeight,
        focal ? new Losses.Focal((float) focalAlpha, (float) focalGamma) : null);
  }

  Schedule rates() {
    return Schedule.of(schedule, steps, warmup);
  }

  /** Reads a file of these keys; what it leaves out is as in {@code defaults}. */
  public static TrainConfig load(Path file, TrainConfig defaults) {
    try {
      return JsonRecord.read(file.toString(), Files.readAllBytes(file), defaults);
    } catch (IOException e) {
      throw new InputException("cannot read " + file + ": " + Reason.of(e), e);
    }
  }

  /** This with the keys of a JSON object put over it. */
  public TrainConfig with(String where, byte[] json) {
    return JsonRecord.read(where, json, this);
  }

  public byte[] toJson() {
    return JsonRecord.write(this);
  }
}
